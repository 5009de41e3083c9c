-- switch.lua: put another document of switches in the place of the one of this version.
-- KEYS[1] {door}:gate    hash
-- KEYS[2] {door}:ramped  set
-- KEYS[3] {door}:changes stream
-- ARGV[1] the version that is to be replaced
-- ARGV[2] the document, text
-- ARGV[3] 1 if a ramp begins with it, else 0
-- ARGV[4] nonce of the change that this call writes, 0 to 2^64-1
-- ARGV[5] how many changes the stream keeps, about
-- Reply: SWITCHED; or OTHER when another version stands there: nothing changes then.
-- Invariant: a version is given out once.
assert(#KEYS == 3, 'switch.lua takes 3 keys')
assert(#ARGV == 5, 'switch.lua takes 5 arguments')
local gate, ramped, changes = KEYS[1], KEYS[2], KEYS[3]
local version, document, new_ramp, nonce, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if (redis.call('HGET', gate, 'version') or '0') ~= version then
  return { 'OTHER' }
end
local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local number = newest and tonumber(string.match(newest[1], '^%d+')) or 0
local next_version = tonumber(version) + 1
redis.call('HSET', gate, 'version', next_version, 'document', document)
if new_ramp == '1' then
  redis.call('DEL', ramped)
  redis.call('HSET', gate, 'budget', 0)
end
redis.call('XADD', changes, 'MAXLEN', '~', keep, (number + 1) .. '-' .. nonce, 'version', next_version, 'why', 'switched')
return { 'SWITCHED' }
