-- Asks for the URL's path, and ends a run of wrk by one line that benchmarks/load.py reads.
-- BENCHMARK_STATUS is what every answer has to have; wrk itself tells only those below 400 from the rest.

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  if tonumber(os.getenv("BENCHMARK_STATUS")) < 400 then
    failed = failed + errors.status
  else
    failed = failed + summary.requests - errors.status
  end
  local p50, p99 = latency:percentile(50), latency:percentile(99)
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, failed, summary.duration, p50, p99))
end
