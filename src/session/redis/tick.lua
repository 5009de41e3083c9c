-- tick.lua: move logical time, and end a bounded number of seats that have expired. Begins the stream of changes where
--   there is none, so that a history in which nothing has ended yet can be told from one that was lost.
-- KEYS[1] {door}:gate    hash
-- KEYS[2] {door}:sites   hash
-- KEYS[3] {door}:renewed sorted set
-- KEYS[4] {door}:changes stream
-- ARGV[1] lease, milliseconds of logical time
-- ARGV[2] the most that this tick moves logical time, milliseconds
-- ARGV[3] the most seats that this tick ends
-- ARGV[4] nonce of the changes that this call writes, 0 to 2^64-1
-- ARGV[5] how many changes the stream keeps, about
-- Reply: TICKED and the number of seats ended.
-- Invariants: logical time never goes back and never runs ahead of the store's clock; a step of that clock, an outage or
--   a successor with another clock moves it by one bounded step at the most. This is the only script that asks a clock.
assert(#KEYS == 4, 'tick.lua takes 4 keys')
assert(#ARGV == 5, 'tick.lua takes 5 arguments')
local gate, sites, renewed, changes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local lease_ms, max_step_ms, batch = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local nonce, keep = ARGV[4], ARGV[5]
assert(lease_ms and lease_ms > 0, 'the lease must be positive')
assert(max_step_ms and max_step_ms > 0, 'the longest step must be positive')
assert(batch and batch >= 1, 'the batch must be positive')

-- Read.
local time = redis.call('TIME')
local store_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local now = tonumber(redis.call('HGET', gate, 'now') or 0)
local last = tonumber(redis.call('HGET', gate, 'last') or store_ms)
now = now + math.min(math.max(store_ms - last, 0), max_step_ms)
local silent = redis.call('ZRANGEBYSCORE', renewed, '-inf', '(' .. (now - lease_ms), 'LIMIT', 0, batch)
local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local number = newest and tonumber(string.match(newest[1], '^%d+')) or 0

-- Decide: several of the seats may be one site's, so its line is changed here and written once.
local lines, ended = {}, {}
for i, member in ipairs(silent) do
  local site, slot = string.match(member, '^(%S+) (%d+)$')
  local line = lines[site] or redis.call('HGET', sites, site)
  local fence = string.match(line, ';' .. slot .. '=%S+ (%d+)')
  lines[site] = string.gsub(line, ';' .. slot .. '=[^;]*', '', 1)
  ended[i] = { site, slot, fence }
end

-- Write.
redis.call('HSET', gate, 'now', now, 'last', store_ms)
for site, line in pairs(lines) do
  redis.call('HSET', sites, site, line)
end
if not newest then
  number = 1
  redis.call('XADD', changes, '1-' .. nonce, 'why', 'begun')
end
for i, ending in ipairs(ended) do
  redis.call('ZREM', renewed, silent[i])
  redis.call('XADD', changes, 'MAXLEN', '~', keep, (number + i) .. '-' .. nonce,
    'site', ending[1], 'slot', ending[2], 'fence', ending[3], 'why', 'expired')
end
return { 'TICKED', #ended }
