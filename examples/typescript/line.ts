// The line from a counter to the service: its session, and calls that are made again where that helps.

import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import { type CallOptions, type Client, Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { OfflineMode, type OpenSessionResponse, SessionEnd, SessionService } from "./gen/rationd/v1/session_service_pb.js";

export const PROGRAMME = "weekly-essentials";
export const TERMINAL = "typescript-1";
// A clerk has a queue: how long one attempt may take, and all of them.
const ATTEMPT_MS = 3_000;
const PATIENCE_MS = 8_000;
// The reasons that the interface lists as not executed (purchase_service.proto). Only these say that an attempt wrote nothing; after
// every other failure, one with a reason that is not here among them, nobody can say.
const NOT_EXECUTED = new Set(
  `INVALID_REQUEST MESSAGE_TOO_LARGE MESSAGE_MALFORMED METHOD_UNKNOWN COMPRESSION_UNKNOWN CERTIFICATE_REQUIRED CERTIFICATE_UNCLEAR
   CERTIFICATE_NOT_BELIEVED SITE_REQUIRED SITE_UNKNOWN SESSION_INVALID SITE_NOT_YOURS TERMINAL_NOT_YOURS NOT_A_SITE
   SESSION_NOT_YOURS SESSION_REQUIRED SESSION_REPLACED SESSION_LOST REQUEST_ID_REUSED REQUEST_ID_CLOSED OTHER_LEDGER OVERLOADED
   BUYER_RECORD_FULL LOOK_UPS_WITHOUT_SALES STORE_UNAVAILABLE REPLICAS_MISSING CLOCKS_APART SESSION_UNCONFIRMED
   DEADLINE_PASSED`.split(/\s+/),
);

// Never a buyer's number: what is printed ends up in logs. The service's answers name it masked.
export const say = (what: string, ...details: string[]) => console.log([what.padEnd(12), ...details].join(" ").trimEnd());

/** A name of the interface as it is written there. */
export const word = (camel = "nothing") => camel.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** Of a failed call: our reason ("": none of ours), and in how many milliseconds the service wants to hear from us again. */
export function told(thrown: unknown): { reason: string; after?: number; code: string } {
  const error = ConnectError.from(thrown);
  const reason = error.findDetails(ErrorInfoSchema).find((info) => info.domain === "rationd")?.reason ?? "";
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return { reason, code: Code[error.code], ...(delay && { after: Number(delay.seconds) * 1_000 + delay.nanos / 1e6 }) };
}

/** A call gave no decision. `unknown`: it may have been recorded all the same. */
export class Failed extends Error {
  constructor(readonly why: string, readonly unknown: boolean) {
    super(why);
  }
}

/** Where it is kept what each programme does when nobody can be asked. */
type Policies = { offline: Record<string, OfflineMode>; write(fact: { offline: Record<string, OfflineMode> }): void };

/** Holds this terminal's place in the line, and then its seat, while the program runs; goes on when a stream ends. */
export class Session {
  /** While the service does not answer, nobody waits for it. */
  reached = false;
  /** What this terminal sells with, once it is let in. */
  token = "";
  ledger = "";
  #place = "";
  #stream = new AbortController();

  readonly #calls: Client<typeof SessionService>;

  constructor(transport: Transport, readonly headers: Record<string, string>, readonly journal: Policies) {
    this.#calls = createClient(SessionService, transport);
  }

  async run() {
    for (let failures = 0; ; failures++) {
      let atLeast = 0;
      this.#stream = new AbortController();
      try {
        const options = { headers: this.headers, signal: this.#stream.signal };
        for await (const { event } of this.#calls.openSession({ terminal: TERMINAL, placeToken: this.#place }, options)) {
          [failures, this.reached] = [0, true];
          atLeast = this.#hear(event);
        }
      } catch (thrown) {
        const { reason, after } = told(thrown);
        if (reason.startsWith("PLACE_")) this.#place = ""; // It is lost: stand in line anew.
        else if (NOT_EXECUTED.has(reason) && after === undefined) {
          say("no session", reason); // Not for a program to mend. A real POS calls somebody, and asks rarely.
          atLeast = 30_000;
        }
        atLeast = after ?? atLeast;
      }
      // The seat is kept for the lease time. All lost their streams together and must not come back together: within 8 s, drawn at
      // random, and later within up to 30.
      await sleep(Math.max(atLeast, Math.random() * Math.min(30_000, 8_000 * 2 ** failures)));
    }
  }

  /** One event; and if it is the stream's last, in how many milliseconds it makes sense to come back, at the soonest. */
  #hear(event: OpenSessionResponse["event"]): number {
    switch (event.case) {
      case "waiting":
        // The token keeps the place when the stream breaks. It lets nobody in: the service says when.
        [this.token, this.#place] = ["", event.value.placeToken];
        say("in line", `rank ${event.value.rank}, position ${event.value.position ?? "not counted yet"}`);
        return 0;
      case "admitted":
        // What is done when nobody can be asked must be known then.
        this.journal.write({ offline: Object.fromEntries(event.value.offline.map(({ programme, mode }) => [programme, mode])) });
        [this.token, this.ledger, this.#place] = [event.value.sessionToken, event.value.ledgerId, ""];
        say("session", `seat ${event.value.slot}; offline: ${OfflineMode[this.journal.offline[PROGRAMME] ?? 0]}`);
        return 0;
      case "shut":
        say("no session", event.case);
        return Number(event.value.retryAfter?.seconds ?? 0) * 1_000;
      default:
        // Two that replace each other in turns help nobody; whoever finds the site full need not hurry.
        say("no session", event.case === "ended" ? `${SessionEnd[event.value.why]}` : `${event.case}`);
        return event.case === "ended" && event.value.why === SessionEnd.DRAINING ? 0 : 10_000;
    }
  }

  /** Nobody answers, until a new stream does. */
  isAway() {
    [this.reached, this.token] = [false, ""];
    this.#stream.abort();
  }

  async wait() {
    while (!this.token) await sleep(100);
  }
}

/** Calls of a terminal, repeated where that helps. */
export class Calls {
  #calls: number[] = [];
  #repeats: number[] = [];

  constructor(readonly session: Session, readonly headers: Record<string, string>) {}

  /** Makes a call and, where that helps, makes it again AS IT STANDS, request id included. */
  async insist<T>(call: (options: CallOptions) => Promise<T>, seat = false): Promise<T> {
    const giveUp = Date.now() + PATIENCE_MS;
    this.#calls.push(Date.now());
    for (let unknown = ""; ; ) {
      try {
        const headers = seat ? { "rationd-session": this.session.token } : this.headers;
        return await call({ headers, timeoutMs: Math.min(ATTEMPT_MS, Math.max(100, giveUp - Date.now())) });
      } catch (thrown) {
        let { reason, after, code } = told(thrown);
        if (!NOT_EXECUTED.has(reason)) [unknown, after] = [unknown || reason || code, 500];
        // The session hears of it too, and opens another.
        else if (reason === "SESSION_INVALID" || reason === "SESSION_LOST") after = 1_000;
        // Never sooner than asked, and not all at once.
        const pause = (after ?? Infinity) * (1 + Math.random());
        // That the last attempt wrote nothing says nothing of an earlier one.
        if (Date.now() + pause > giveUp || !this.#mayRepeat()) throw new Failed(unknown || reason, unknown !== "");
        say("no answer", `${unknown || reason}; again, with the same request id`);
        await sleep(pause);
      }
    }
  }

  /** One repeat for every ten calls of the last ten seconds, and one for fewer: a service in trouble is not buried by us. */
  #mayRepeat() {
    const lately = (made: number[]) => made.filter((at) => at > Date.now() - 10_000);
    [this.#calls, this.#repeats] = [lately(this.#calls), lately(this.#repeats)];
    const may = this.#repeats.length < Math.max(1, Math.floor(this.#calls.length / 10));
    if (may) this.#repeats.push(Date.now());
    return may;
  }
}

export function connect(address: string, files: string[]) {
  // A service that vanished without a word is known by its silence.
  const pings = { pingIntervalMs: 20_000, pingTimeoutMs: 5_000 };
  if (files.length === 0) return createGrpcTransport({ baseUrl: `http://${address}`, ...pings }); // On loopback only.
  // Elsewhere the certificate says which site this is.
  const [ca, cert, key] = files.map((file) => readFileSync(file));
  return createGrpcTransport({ baseUrl: `https://${address}`, nodeOptions: { ca, cert, key }, ...pings });
}
