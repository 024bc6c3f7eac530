"""
One job that asks for as much as the largest of the built-in engine, merging, and works for a second: `sfxflow doctor --profile` submits it.

Needs    question.json
Provides answer.json: what the machine that ran the job has seen
"""


rule trial:
    input:
        "question.json",
    output:
        "answer.json",
    log:
        "trial.log",
    threads: 8
    resources:
        mem_mb=8000,
        htcondor_request_mem_mb=8000,
        disk_mb=1000,
        htcondor_request_disk_mb=1000,
        runtime=10,
    shell:
        "sfxflow doctor" " --question {input:q}" " --answer {output:q}" " > {log:q} 2>&1"
