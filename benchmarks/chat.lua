-- Chats for wrk, each by a contact of its own, so that every server answers a first message each time.
-- BENCHMARK_KEY is the bearer key, BENCHMARK_ROUND keeps the contacts of one run of wrk from those of another.

local headers = {
  ["Content-Type"] = "application/json",
  ["Authorization"] = "Bearer " .. os.getenv("BENCHMARK_KEY"),
}
local before = '{"contact_id":"' .. os.getenv("BENCHMARK_ROUND") .. "-"
local after = '","message":"What are Geneva Durben\'s interests?"}'
local number = 0

function request()
  number = number + 1
  return wrk.format("POST", "/api/v1/chat", headers, before .. number .. after)
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("RESULT %d %d %d\n", summary.requests, failed, summary.duration))
end
