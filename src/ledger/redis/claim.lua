#!lua
-- claim: sells, or holds, if every window allows it; a known id answers with what became of it.
--
-- KEYS[1] record: string, its entries, each >c16BBBI4I6I6 (request id, length of the rest, state, flags, units, at,
--   mark) and the site (1 to 16 bytes)
-- KEYS[2] outbox: stream, the one of the record's partition; an event is its kind, then the entry and the origin
-- KEYS[3] ring: string, the ring of keys under which this partition is written
-- KEYS[4] previous: string, the buyer's record under the key that the ring has left; none: the record again
-- ARGV[1] asked: packed, the entry as it is to stand if it is granted now; its at is the service's clock, ms since 1970
-- ARGV[2] origin: text, the programme's code, the terminal and what was stated, a space between them
-- ARGV[3] ours: text, the ring that the call was made under, a key's number and the mark
-- ARGV[4] left: text, the ring that ours follows while both records are read, or nothing
-- ARGV[5] windows: packed, >I6 (good until, ms since 1970; from then on they may be the wrong ones) and each window,
--   >I6I6I5I5 (from ms, until ms, most units, most purchases; 2^40-1: no limit)
-- Reply: packed, >sBI6 (word; replayed, 0 or 1; at, ms since 1970) and the record after the call
--   outcomes: RECORDED HELD REFUSED RELEASED HOLD_EXPIRED VOIDED ASSESS_AGAIN
--   errors: REQUEST_ID_REUSED REQUEST_ID_CLOSED BUYER_RECORD_FULL
--   or OTHER_RING, and behind it the ring that the partition is written under
-- Invariants: reads everything, decides, writes everything; the event and the record in one step; an error writes
-- nothing; times are arguments, there is no clock here.
assert(#KEYS == 4, 'claim takes 4 keys')
assert(#ARGV == 5, 'claim takes 5 arguments')
local record, outbox, ring, previous = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local asked, origin, ours, left, windows = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local SOLD, HELD, RELEASED, VOIDED, REFUSED, CLOSED = 1, 2, 3, 4, 5, 6
local ENTRY, HOLD, LATE, NEVER = '>c16BBBI4I6I6', 1, 2, 281474976710655
local MOST_DEAD, NO_LIMIT, OUTBOX = 16, 1099511627775, '20000'
local request, length, wanted, kind, quantity, now, ends, rest = struct.unpack(ENTRY, asked)
local site, good_until = string.sub(asked, rest), struct.unpack('>I6', windows)
assert(#site >= 1 and #site <= 16 and length == 18 + #site and quantity >= 1
  and (wanted == SOLD and kind == 0 or wanted == HELD and kind == HOLD), 'asked must be a sale or a hold of units')
assert(#windows % 22 == 6, 'windows must be packed')

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

-- Decide: the word, the entry that is put into the record, its event, and the holds of other ids that have run out.
local word, replayed, entry, event, passed = nil, 0, nil, nil, nil
if mine then
  local AGAIN = { [SOLD] = 'RECORDED', [HELD] = 'HELD', [RELEASED] = 'RELEASED', [VOIDED] = 'VOIDED',
                  [REFUSED] = 'REFUSED' }
  if mine.state == CLOSED then
    word = 'REQUEST_ID_CLOSED'
  elseif mine.site ~= site or mine.units ~= quantity or bit.band(mine.flags, HOLD) ~= kind then
    word = 'REQUEST_ID_REUSED'
  elseif mine.state == HELD and not mine.counts then
    word, event = 'HOLD_EXPIRED', 'released'
    entry = struct.pack(ENTRY, request, length, RELEASED, mine.flags, mine.units, mine.at, mine.mark) .. site
  else
    word, replayed = AGAIN[mine.state], 1
  end
elseif at >= good_until then
  word = 'ASSESS_AGAIN'
elseif dead >= MOST_DEAD then
  word = 'BUYER_RECORD_FULL'
else
  local fits = true
  for w = 7, #windows, 22 do
    local from, to, most_units, most_purchases = struct.unpack('>I6I6I5I5', windows, w)
    local units, purchases = quantity, 1
    for i = 1, #entries do
      local other = entries[i]
      if other.counts and from <= other.at and other.at < to then
        units, purchases = units + other.units, purchases + 1
      end
    end
    if most_units ~= NO_LIMIT and units > most_units then fits = false end
    if most_purchases ~= NO_LIMIT and purchases > most_purchases then fits = false end
  end
  if not fits then
    word, entry = 'REFUSED', struct.pack(ENTRY, request, length, REFUSED, kind, quantity, at, at) .. site
  else
    word, event, entry = 'RECORDED', 'sold', asked
    if wanted == HELD then word, event = 'HELD', 'held' end
    if at > now then
      entry = struct.pack(ENTRY, request, length, wanted, kind, quantity, at, math.min(ends + at - now, NEVER)) .. site
    end
  end
  for i = 1, #entries do
    if entries[i].state == HELD and not entries[i].counts then
      passed = passed or {}
      passed[#passed + 1] = entries[i]
    end
  end
end
-- What was stated is told of the purchase alone; those that run out are told oldest first.
local by = (passed or event == 'released') and assert(string.match(origin, '^%S+ %S+ '), 'the origin has no terminal')
if event == 'released' then origin = by end
if passed then table.sort(passed, function(a, b) return a.at < b.at or (a.at == b.at and a.id < b.id) end) end

-- Write. The outbox first: should it be unwritable, the script ends there and the record is as it was. It is cut to its
-- length in about one step of sixteen, by the millisecond.
if entry then
  if event then redis.call('XADD', outbox, '*', event, entry .. origin) end
  for i = 1, passed and #passed or 0 do
    local hold = passed[i]
    stored = string.sub(stored, 1, hold.place + 16) .. string.char(RELEASED) .. string.sub(stored, hold.place + 18)
    redis.call('XADD', outbox, '*', 'released', string.sub(stored, hold.place, hold.after - 1) .. by)
  end
  if at % 16 == 0 then redis.call('XTRIM', outbox, 'MAXLEN', '~', OUTBOX) end
  stored = mine and string.sub(stored, 1, mine.place - 1) .. entry .. string.sub(stored, mine.after) or stored .. entry
  redis.call('SET', record, stored)
  if read[3] then redis.call('DEL', previous) end
end
return struct.pack('>sBI6', word, replayed, at) .. stored
