#!lua
-- identity: names the ledger if it has no name yet, and answers with the name and the terms that stand.
--
-- KEYS[1] ledger: hash, the ledger's identity
-- ARGV[1] id: text, a hyphenated UUID to be used at birth
-- ARGV[2] layout: integer, of keys and entries, to be used at birth
-- ARGV[3] terms: JSON, a flat list of field and text, to be used at birth
-- ARGV[4] programmes: JSON, the same, each used when the ledger first meets it
-- ARGV[5] rings: JSON, the texts that the field `keys` may stand at, each with whether it moves on from there
-- ARGV[6] turned: text, the instant at which `keys` moves on, if it does
-- Reply: the hash as it stands (field, text, ...)
-- Invariants: no field that stands is changed but `keys`, which follows the ring, and `turned` with it; where any of these differs from what
-- stands, nothing is written.
assert(#KEYS == 1, 'identity takes 1 keys')
assert(#ARGV == 6, 'identity takes 6 arguments')
local ledger = KEYS[1]
local id, layout, turned = ARGV[1], ARGV[2], ARGV[6]
local terms, programmes, rings = cjson.decode(ARGV[3]), cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
assert(#id == 36, 'ARGV[1] must be a UUID')
assert(tonumber(layout), 'ARGV[2] must be a number')
assert(#terms >= 2 and #terms % 2 == 0, 'ARGV[3] must be fields and texts')
assert(#programmes % 2 == 0, 'ARGV[4] must be fields and texts')

local born = redis.call('EXISTS', ledger) == 0
local agreed = born or redis.call('HGET', ledger, 'layout') == layout
local keys
for i = 1, #terms, 2 do
  local stands = redis.call('HGET', ledger, terms[i])
  if terms[i] == 'keys' and stands and rings[stands] ~= nil then
    if rings[stands] then keys = terms[i + 1] end
  else
    agreed = agreed and (born or stands == terms[i + 1])
  end
end
for i = 1, #programmes, 2 do
  local stands = redis.call('HGET', ledger, programmes[i])
  agreed = agreed and (not stands or stands == programmes[i + 1])
end
if born then redis.call('HSET', ledger, 'id', id, 'layout', layout, unpack(terms)) end
if agreed then
  if keys then redis.call('HSET', ledger, 'keys', keys, 'turned', turned) end
  for i = 1, #programmes, 2 do redis.call('HSETNX', ledger, programmes[i], programmes[i + 1]) end
end
return redis.call('HGETALL', ledger)
