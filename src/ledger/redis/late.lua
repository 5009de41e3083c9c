#!lua
-- late: records a sale made on paper; it happened, so what fits no window is recorded and marked over.
--
-- KEYS[1] record: string, its entries, each >c16BBBI4I6I6 (request id, length of the rest, state, flags, units, at,
--   mark) and the site (1 to 16 bytes)
-- KEYS[2] outbox: stream, the one of the record's partition; an event is its kind, then the entry and the origin
-- KEYS[3] ring: string, the ring of keys under which this partition is written
-- KEYS[4] previous: string, the buyer's record under the key that the ring has left; none: the record again
-- ARGV[1] asked: packed, the entry as it is to stand if it fits; its at is what the paper says and its mark the
--   service's clock, ms since 1970
-- ARGV[2] origin: text, the programme's code, the terminal and what was stated, a space between them
-- ARGV[3] ours: text, the ring that the call was made under, a key's number and the mark
-- ARGV[4] left: text, the ring that ours follows while both records are read, or nothing
-- ARGV[5] windows: packed, each >I6I6I5I5 (from ms, until ms, most units, most purchases; 2^40-1: no limit)
-- Reply: packed, >sBI6 (word; replayed, 0 or 1; at, ms since 1970) and the record after the call
--   outcomes: SOLD ALREADY_RECORDED ALREADY_VOIDED
--   errors: REQUEST_ID_REUSED BUYER_RECORD_FULL
--   or OTHER_RING, and behind it the ring that the partition is written under
-- Invariants: reads everything, decides, writes everything; the event and the record in one step; an error writes
-- nothing; times are arguments, there is no clock here.
assert(#KEYS == 4, 'late takes 4 keys')
assert(#ARGV == 5, 'late takes 5 arguments')
local record, outbox, ring, previous = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local asked, origin, ours, left, windows = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local SOLD, HELD, RELEASED, VOIDED, REFUSED, CLOSED = 1, 2, 3, 4, 5, 6
local ENTRY, HOLD, LATE, OVER = '>c16BBBI4I6I6', 1, 2, 4
local MOST_LATE, NO_LIMIT, OUTBOX = 64, 1099511627775, '20000'
local request, length, wanted, marks, quantity, sold_at, now, rest = struct.unpack(ENTRY, asked)
local site = string.sub(asked, rest)
assert(#site >= 1 and #site <= 16 and length == 18 + #site and quantity >= 1 and wanted == SOLD and marks == LATE,
  'asked must be a late sale of units')
assert(#windows % 22 == 0, 'windows must be packed')

-- Read. All of it at once: a buyer has one record, under the key of the ring or under the one that it has left. Every
-- entry is decoded once; `at` becomes the later of the service's clock and the newest online entry.
local read = left == '' and redis.call('MGET', ring, record) or redis.call('MGET', ring, record, previous)
if read[1] ~= ours then
  -- Nobody writes under a ring that another has left, and nobody moves on but from the one before.
  if read[1] and (left == '' or read[1] ~= left) then return struct.pack('>sBI6', 'OTHER_RING', 0, now) .. read[1] end
  redis.call('SET', ring, ours)
end
local stored = (read[2] or '') .. (read[3] or '')
local entries, mine, at, dead, place = {}, nil, now, 0, 1
while place <= #stored do
  local id, size, state, flags, units, when, mark, rest = struct.unpack(ENTRY, stored, place)
  local after = place + 17 + size
  assert(state >= SOLD and state <= CLOSED and flags < 8 and rest < after and after <= #stored + 1,
    'an entry is of another layout')
  local entry = { place = place, after = after, id = id, state = state, flags = flags, units = units, at = when,
                  mark = mark, site = string.sub(stored, rest, after - 1) }
  entries[#entries + 1] = entry
  if id == request then mine = entry end
  if bit.band(flags, LATE) == 0 and when > at then at = when end
  place = after
end
for i = 1, #entries do
  local entry = entries[i]
  entry.counts = entry.state == SOLD or (entry.state == HELD and at < entry.mark)
  if entry.site == site and not entry.counts then dead = dead + 1 end
end

-- Decide: the word, the entry that is put into the record, and its event.
local word, replayed, entry, event = nil, 1, nil, nil
local entered = 0
for i = 1, #entries do
  if entries[i].site == site and bit.band(entries[i].flags, LATE) ~= 0 then entered = entered + 1 end
end
if mine and mine.state ~= CLOSED and (mine.site ~= site or mine.units ~= quantity) then
  word, replayed = 'REQUEST_ID_REUSED', 0
elseif mine and mine.state == SOLD then
  word = 'ALREADY_RECORDED'
elseif mine and mine.state == VOIDED then
  word = 'ALREADY_VOIDED'
elseif not mine and entered >= MOST_LATE then
  word, replayed = 'BUYER_RECORD_FULL', 0
else
  local fits = not mine or mine.state ~= REFUSED
  for w = 1, #windows, 22 do
    local from, to, most_units, most_purchases = struct.unpack('>I6I6I5I5', windows, w)
    local units, purchases = quantity, 1
    for i = 1, #entries do
      local other = entries[i]
      if other ~= mine and other.counts and from <= other.at and other.at < to then
        units, purchases = units + other.units, purchases + 1
      end
    end
    if most_units ~= NO_LIMIT and units > most_units then fits = false end
    if most_purchases ~= NO_LIMIT and purchases > most_purchases then fits = false end
  end
  local flags = LATE + (mine and bit.band(mine.flags, HOLD) or 0) + (fits and 0 or OVER)
  word, replayed, event = 'SOLD', 0, 'late'
  entry = struct.pack(ENTRY, request, length, SOLD, flags, quantity, sold_at, at) .. site
end

-- Write. The outbox first: should it be unwritable, the script ends there and the record is as it was. It is cut to its
-- length in about one step of sixteen, by the millisecond.
if entry then
  stored = mine and string.sub(stored, 1, mine.place - 1) .. entry .. string.sub(stored, mine.after) or stored .. entry
  if event then redis.call('XADD', outbox, '*', event, entry .. origin) end
  if at % 16 == 0 then redis.call('XTRIM', outbox, 'MAXLEN', '~', OUTBOX) end
  redis.call('SET', record, stored)
  if read[3] then redis.call('DEL', previous) end
end
return struct.pack('>sBI6', word, replayed, at) .. stored
