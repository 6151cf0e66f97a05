// A study by Nextflow: nextflow run main.nf --study /data/study.toml --shards 8 --folds 5
params.study = 'study.toml'
params.shards = 8
params.folds = 5
RUN = "mtdlr run '${params.study}' --set run.workers=1"
OK = '; status=$?; [ $status -le 1 ]'  // 1: some patients failed, and were named; the others go on

process prepare {
    input: val shard
    output: val shard
    script: "$RUN --until prepare --shard $shard/${params.shards} $OK"
}
process prepared {
    input: val shards
    output: val true
    script: "$RUN --until prepare $OK"
}
process train {
    input: tuple val(fold), val(ready)
    output: val fold
    script: "$RUN --until train --fold $fold"
}
process radiomics {
    input: tuple val(shard), val(ready)
    output: val shard
    script: "$RUN --until radiomics --shard $shard/${params.shards} $OK"
}
process finish {
    input: val shards
    script: "$RUN $OK"
}
workflow {
    ready = prepared(prepare(channel.of(1..params.shards)).collect())
    trained = train(channel.of(0..<params.folds).combine(ready)).collect().map { true }
    finish(radiomics(channel.of(1..params.shards).combine(trained)).collect())
}
