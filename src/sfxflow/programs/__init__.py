"""Other people's programs that are run as engines and mergers: what they are told, and what is believed of what they say."""
