#!lua
-- late: records a sale made on paper; it happened, so what fits no window is recorded and marked over.
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
-- ARGV[8] sold at: integer, ms since 1970 as the paper says
-- ARGV[9] windows: packed, >I6I6I5I5 each: from ms, until ms, most units, most purchases (2^40-1: no limit)
-- ARGV[10] stated: text, kept in the event
-- Reply: word, replayed (0 or 1), at (integer, ms since 1970), the record after the call (name, value, ...)
--   outcomes: SOLD ALREADY_RECORDED ALREADY_VOIDED
--   errors: REQUEST_ID_REUSED
-- Invariants: reads everything, decides, writes everything; the event and the record in one step; an error writes
-- nothing; times are arguments, there is no clock here.
assert(#KEYS == 2, 'late takes 2 keys')
assert(#ARGV == 10, 'late takes 10 arguments')
local record, outbox = KEYS[1], KEYS[2]
local request, request_text, site, terminal, programme = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local now, quantity, sold_at = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local windows, stated = ARGV[9], ARGV[10]
local SOLD, HELD, RELEASED, VOIDED, REFUSED, CLOSED = 1, 2, 3, 4, 5, 6
local NEVER, LATE, OUTBOX = 281474976710655, 2, 20000
local HOLD, OVER, NO_LIMIT = 1, 4, 1099511627775
assert(#request == 16 and #request_text == 36, 'ARGV[1] and ARGV[2] must be a request id')
assert(#site >= 1 and #site <= 16, 'ARGV[3] must be a site code')
assert(now and now >= 0 and now <= NEVER, 'ARGV[6] must be an instant')
assert(quantity and quantity >= 1 and quantity <= 4294967295, 'ARGV[7] must be a number of units')
assert(sold_at and sold_at >= 0 and sold_at <= NEVER, 'ARGV[8] must be an instant')
assert(#windows % 22 == 0, 'ARGV[9] must be packed windows')

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
local function tell(kind, units, when, said)
  events[1] = { 'kind', kind, 'programme', programme, 'request', request_text, 'site', site, 'terminal', terminal,
                'quantity', units, 'at', when, 'stated', said }
end
local function fits()
  for w = 1, #windows, 22 do
    local from, to, most_units, most_purchases = struct.unpack('>I6I6I5I5', windows, w)
    local units, purchases = 0, 0
    for _, entry in ipairs(entries) do
      if entry ~= mine and counts(entry) and from <= entry.at and entry.at < to then
        units, purchases = units + entry.units, purchases + 1
      end
    end
    if most_units ~= NO_LIMIT and units + quantity > most_units then return false end
    if most_purchases ~= NO_LIMIT and purchases >= most_purchases then return false end
  end
  return true
end
local word, replayed = nil, 1
if mine and mine.state ~= CLOSED and (mine.site ~= site or mine.units ~= quantity) then
  return { 'REQUEST_ID_REUSED', 0, at, fields }
elseif mine and mine.state == SOLD then
  word = 'ALREADY_RECORDED'
elseif mine and mine.state == VOIDED then
  word = 'ALREADY_VOIDED'
else
  word, replayed = 'SOLD', 0
  local flags = LATE + (mine and bit.band(mine.flags, HOLD) or 0)
  if not fits() or (mine and mine.state == REFUSED) then flags = flags + OVER end
  put(mine and mine.index or #fields + 1, request,
    struct.pack('>BBI4I6I6', SOLD, flags, quantity, sold_at, at) .. site)
  tell('late', quantity, sold_at, stated)
end

-- Write. The outbox first: should it be unwritable, the script ends there and the record is as it was.
for _, event in ipairs(events) do
  redis.call('XADD', outbox, 'MAXLEN', '~', OUTBOX, '*', unpack(event))
end
if #writes > 0 then redis.call('HSET', record, unpack(writes)) end
return { word, replayed, at, fields }
