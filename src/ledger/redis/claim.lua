#!lua
-- claim: sells, or holds, if every window allows it; a known id answers with what became of it.
--
-- KEYS[1] record: hash, request id (16 bytes) to packed entry (>BBI4I6I6 and the site)
-- KEYS[2] outbox: stream, the one of the record's partition
-- ARGV[1] request id: 16 bytes
-- ARGV[2] request id: text, a hyphenated UUID
-- ARGV[3] site: text, 1 to 16 bytes
-- ARGV[4] terminal: text
-- ARGV[5] programme: text, the short code
-- ARGV[6] now: integer, ms since 1970 by the service's clock
-- ARGV[7] quantity: integer, units
-- ARGV[8] hold length: integer, ms; -1 for a sale
-- ARGV[9] good until: integer, ms since 1970; from then on the windows may be the wrong ones
-- ARGV[10] windows: packed, >I6I6I5I5 each: from ms, until ms, most units, most purchases (2^40-1: no limit)
-- ARGV[11] stated: text, kept in the event
-- Reply: word, replayed (0 or 1), at (integer, ms since 1970), the record after the call (name, value, ...)
--   outcomes: RECORDED HELD REFUSED RELEASED HOLD_EXPIRED VOIDED ASSESS_AGAIN
--   errors: REQUEST_ID_REUSED REQUEST_ID_CLOSED BUYER_RECORD_FULL
-- Invariants: reads everything, decides, writes everything; the event and the record in one step; an error writes
-- nothing; times are arguments, there is no clock here.
assert(#KEYS == 2, 'claim takes 2 keys')
assert(#ARGV == 11, 'claim takes 11 arguments')
local record, outbox = KEYS[1], KEYS[2]
local request, request_text, site, terminal, programme = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local now, quantity, hold_for, good_until = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local windows, stated = ARGV[10], ARGV[11]
local SOLD, HELD, RELEASED, VOIDED, REFUSED, CLOSED = 1, 2, 3, 4, 5, 6
local NEVER, LATE, MOST_DEAD, OUTBOX = 281474976710655, 2, 16, 20000
local HOLD, NO_LIMIT = 1, 1099511627775
local AGAIN = { [SOLD] = 'RECORDED', [HELD] = 'HELD', [RELEASED] = 'RELEASED', [VOIDED] = 'VOIDED', [REFUSED] = 'REFUSED' }
assert(#request == 16 and #request_text == 36, 'ARGV[1] and ARGV[2] must be a request id')
assert(#site >= 1 and #site <= 16, 'ARGV[3] must be a site code')
assert(now and now >= 0 and now <= NEVER, 'ARGV[6] must be an instant')
assert(quantity and quantity >= 1 and quantity <= 4294967295, 'ARGV[7] must be a number of units')
assert(hold_for and hold_for >= -1 and hold_for <= NEVER, 'ARGV[8] must be a length or -1')
assert(good_until and good_until >= 0 and good_until <= NEVER, 'ARGV[9] must be an instant')
assert(#windows % 22 == 0, 'ARGV[10] must be packed windows')

-- Read. Every entry is decoded once; `at` becomes the later of the service's clock and the newest online entry.
local fields = redis.call('HGETALL', record)
local entries, mine, at = {}, nil, now
for i = 1, #fields, 2 do
  local state, flags, units, when, mark, rest = struct.unpack('>BBI4I6I6', fields[i + 1])
  assert(state >= SOLD and state <= CLOSED and flags < 8, 'an entry is of another layout')
  local entry = { index = i, id = fields[i], value = fields[i + 1], state = state, flags = flags, units = units,
                  at = when, mark = mark, site = string.sub(fields[i + 1], rest) }
  entries[#entries + 1] = entry
  if entry.id == request then mine = entry end
  if bit.band(flags, LATE) == 0 and when > at then at = when end
end
local function counts(entry) return entry.state == SOLD or (entry.state == HELD and at < entry.mark) end

-- Decide. `put` changes only what will be answered; nothing is written before the end.
local writes, events = {}, {}
local function put(index, id, value)
  fields[index], fields[index + 1] = id, value
  writes[#writes + 1], writes[#writes + 2] = id, value
end
local function tell(kind, id, place, units, when, said)
  events[#events + 1] = { 'kind', kind, 'programme', programme, 'request', id, 'site', place, 'terminal', terminal,
                          'quantity', units, 'at', when, 'stated', said }
end
local function full()
  local dead = 0
  for _, entry in ipairs(entries) do
    if entry.site == site and not counts(entry) then dead = dead + 1 end
  end
  return dead >= MOST_DEAD
end
local function fits()
  for w = 1, #windows, 22 do
    local from, to, most_units, most_purchases = struct.unpack('>I6I6I5I5', windows, w)
    local units, purchases = 0, 0
    for _, entry in ipairs(entries) do
      if counts(entry) and from <= entry.at and entry.at < to then
        units, purchases = units + entry.units, purchases + 1
      end
    end
    if most_units ~= NO_LIMIT and units + quantity > most_units then return false end
    if most_purchases ~= NO_LIMIT and purchases >= most_purchases then return false end
  end
  return true
end
local function uuid(id)
  local hex = string.gsub(id, '.', function(byte) return string.format('%02x', string.byte(byte)) end)
  return string.sub(hex, 1, 8) .. '-' .. string.sub(hex, 9, 12) .. '-' .. string.sub(hex, 13, 16) .. '-'
    .. string.sub(hex, 17, 20) .. '-' .. string.sub(hex, 21)
end
local function run_out(hold)
  put(hold.index, hold.id, string.char(RELEASED) .. string.sub(hold.value, 2))
  tell('released', uuid(hold.id), hold.site, hold.units, hold.at, '')
end
local kind = hold_for >= 0 and HOLD or 0
local word, replayed = nil, 0
if mine and mine.state == CLOSED then
  return { 'REQUEST_ID_CLOSED', 0, at, fields }
elseif mine and (mine.site ~= site or mine.units ~= quantity or bit.band(mine.flags, HOLD) ~= kind) then
  return { 'REQUEST_ID_REUSED', 0, at, fields }
elseif mine and mine.state == HELD and not counts(mine) then
  word = 'HOLD_EXPIRED'
  run_out(mine)
elseif mine then
  word, replayed = AGAIN[mine.state], 1
elseif at >= good_until then
  word = 'ASSESS_AGAIN'
elseif full() then
  return { 'BUYER_RECORD_FULL', 0, at, fields }
else
  local allowed, state, mark = fits(), REFUSED, at
  if allowed and kind == HOLD then
    state, mark = HELD, math.min(at + hold_for, NEVER)
    tell('held', request_text, site, quantity, at, stated)
    events[1][17], events[1][18] = 'until', mark
  elseif allowed then
    state = SOLD
    tell('sold', request_text, site, quantity, at, stated)
  end
  word = AGAIN[state]
  put(#fields + 1, request, struct.pack('>BBI4I6I6', state, kind, quantity, at, mark) .. site)
  -- Holds of other ids that have run out are written down on the way, oldest first.
  table.sort(entries, function(a, b) return a.at < b.at or (a.at == b.at and a.id < b.id) end)
  for _, entry in ipairs(entries) do
    if entry.state == HELD and not counts(entry) then run_out(entry) end
  end
end

-- Write. The outbox first: should it be unwritable, the script ends there and the record is as it was.
for _, event in ipairs(events) do
  redis.call('XADD', outbox, 'MAXLEN', '~', OUTBOX, '*', unpack(event))
end
if #writes > 0 then redis.call('HSET', record, unpack(writes)) end
return { word, replayed, at, fields }
