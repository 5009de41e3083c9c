#!lua
-- identity: names the ledger if it has no name yet, and answers with the name that stands.
--
-- KEYS[1] ledger: hash, the ledger's identity
-- ARGV[1] id: text, a hyphenated UUID to be used at birth
-- ARGV[2] layout: integer, of keys and entries, to be used at birth
-- Reply: id (text), layout (text)
-- Invariants: an identity that stands is never changed.
assert(#KEYS == 1, 'identity takes 1 keys')
assert(#ARGV == 2, 'identity takes 2 arguments')
local ledger = KEYS[1]
local id, layout = ARGV[1], ARGV[2]
assert(#id == 36, 'ARGV[1] must be a UUID')
assert(tonumber(layout), 'ARGV[2] must be a number')

if redis.call('EXISTS', ledger) == 0 then redis.call('HSET', ledger, 'id', id, 'layout', layout) end
return redis.call('HMGET', ledger, 'id', 'layout')
