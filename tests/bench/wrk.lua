-- What a request is, from the variables BENCH_METHOD and BENCH_BODY, and a line of JSON in place of wrk's own report.
wrk.method = os.getenv("BENCH_METHOD") or "GET"
wrk.body = os.getenv("BENCH_BODY")

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nJSON {"requests": %d, "seconds": %.6f, "bytes": %d, "p50": %.4f, "p99": %.4f, "errors": %d, "failed_reads": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.write + e.status + e.timeout, e.read))
end
