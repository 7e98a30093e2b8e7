rule table1:
    input:
        plan.table_scores("table1"),
    output:
        markdown=paths.table("table1.md"),
        csv=paths.table("table1.csv"),
        latex=paths.table("table1.tex"),
        figure=paths.table("table1.png"),
        long=paths.table("scores.csv"),
    log:
        paths.log("table1"),
    conda:
        "../envs/ssondo.yaml"
    params:
        options=options("table1"),
        code=code("table1"),
    message:
        "Writing Table 1"
    shell:
        "ssondo table1 --scores {input} {params.options} --markdown {output.markdown} --csv {output.csv}"
        " --latex {output.latex} --figure {output.figure} --long {output.long} --log {log}"
