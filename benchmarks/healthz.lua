-- Ends a run of wrk by one line that benchmarks/load.py reads.

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("RESULT %d %d %d\n", summary.requests, failed, summary.duration))
end
