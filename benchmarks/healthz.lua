-- Ends a run of wrk by one line that benchmarks/load.py reads.

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  local p50, p99 = latency:percentile(50), latency:percentile(99)
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, failed, summary.duration, p50, p99))
end
