#!lua
-- identity: names the ledger if it has no name yet, and answers with the name that stands and the keys it was begun with.
--
-- KEYS[1] ledger: hash, the ledger's identity
-- ARGV[1] id: text, a hyphenated UUID to be used at birth
-- ARGV[2] layout: integer, of keys and entries, to be used at birth
-- ARGV[3] keys: text, the mark of the key ring, to be used at birth
-- Reply: id (text), layout (text), keys (text)
-- Invariants: an identity that stands is never changed.
assert(#KEYS == 1, 'identity takes 1 keys')
assert(#ARGV == 3, 'identity takes 3 arguments')
local ledger = KEYS[1]
local id, layout, keys = ARGV[1], ARGV[2], ARGV[3]
assert(#id == 36, 'ARGV[1] must be a UUID')
assert(tonumber(layout), 'ARGV[2] must be a number')
assert(#keys == 16, 'ARGV[3] must be the mark of a key ring')

if redis.call('EXISTS', ledger) == 0 then redis.call('HSET', ledger, 'id', id, 'layout', layout, 'keys', keys) end
return redis.call('HMGET', ledger, 'id', 'layout', 'keys')
