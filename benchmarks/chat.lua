-- Chats for wrk, each by a contact of its own, so that every server answers a first message each time.
-- BENCHMARK_TOKENS is a file of bearer tokens, a line each, which are taken in turn; without it BENCHMARK_KEY is the one.
-- BENCHMARK_ROUND keeps the contacts of one run of wrk from those of another.

local tokens = {}
if os.getenv("BENCHMARK_TOKENS") then
  for line in io.lines(os.getenv("BENCHMARK_TOKENS")) do tokens[#tokens + 1] = line end
else
  tokens[1] = os.getenv("BENCHMARK_KEY")
end
local headers = { ["Content-Type"] = "application/json" }
local before = '{"contact_id":"' .. os.getenv("BENCHMARK_ROUND") .. "-"
local after = '","message":"What are Geneva Durben\'s interests?"}'
local number = 0

function request()
  number = number + 1
  headers["Authorization"] = "Bearer " .. tokens[number % #tokens + 1]
  return wrk.format("POST", "/api/v1/chat", headers, before .. number .. after)
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("RESULT %d %d %d\n", summary.requests, failed, summary.duration))
end
