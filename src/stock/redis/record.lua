#!lua
-- record: keep a report, once for each id of a site.
-- KEYS[1] {stock}:reports      stream
-- KEYS[2] {stock}:ids:SITE:DAY hash, of the day of the report
-- KEYS[3] the same of the day before
-- KEYS[4] the same of the day after: of an instance whose clock is ahead
-- ARGV[1] request id, 16 raw bytes
-- ARGV[2] the report, packed
-- ARGV[3] how many reports the stream keeps, about
-- ARGV[4] how long the ids of a day are remembered after its last report, seconds
-- ARGV[5] how many reports of a day are taken of a site
-- Reply: nil when the report is there now; else the report that stood under this id, packed, and nothing changes; empty: the site has
-- reported too often today, and nothing changes.
-- Invariant: no id of a site that is remembered has two messages.
assert(#KEYS == 4, 'record takes 4 keys')
assert(#ARGV == 5, 'record takes 5 arguments')
local reports, day, before, after = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, report, keep, remembered, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local stood = redis.call('HGET', day, id) or redis.call('HGET', before, id) or redis.call('HGET', after, id)
if stood then
  return stood
end
if redis.call('HLEN', day) >= most then
  return ''
end
redis.call('XADD', reports, 'MAXLEN', '~', keep, '*', 'report', report)
redis.call('HSET', day, id, report)
redis.call('EXPIRE', day, remembered)
return false
