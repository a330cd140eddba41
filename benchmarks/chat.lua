-- Messages for wrk to the URL's path, each by a contact of its own, so that every server answers a first message each time.
-- BENCHMARK_TOKENS is a file of bearer tokens, a line each, which are taken in turn; without it BENCHMARK_KEY is the one.
-- BENCHMARK_ROUND keeps the contacts of one run of wrk from those of another.
-- BENCHMARK_CHECK has every answer looked at, which costs wrk some time; a wrong one ends it.

local tokens = {}
if os.getenv("BENCHMARK_TOKENS") then
  for line in io.lines(os.getenv("BENCHMARK_TOKENS")) do tokens[#tokens + 1] = line end
else
  tokens[1] = os.getenv("BENCHMARK_KEY")
end
local headers = { ["Content-Type"] = "application/json" }
local before = '{"contact_id":"' .. os.getenv("BENCHMARK_ROUND") .. "-"
local message = "What are Geneva Durben's interests?"
local after = '","message":"' .. message .. '"}'
local number = 0

function request()
  number = number + 1
  headers["Authorization"] = "Bearer " .. tokens[number % #tokens + 1]
  return wrk.format("POST", nil, headers, before .. number .. after)
end

if os.getenv("BENCHMARK_CHECK") then
  function response(status, _, body)
    local echoed = body:find('"assistant_messages":["' .. message .. '"]', 1, true)
    assert(status == 200 and echoed and body:find('"created_new_thread":true', 1, true), status .. " " .. body)
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  local p50, p99 = latency:percentile(50), latency:percentile(99)
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, failed, summary.duration, p50, p99))
end
