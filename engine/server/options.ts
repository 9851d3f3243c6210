/** Limits and times of the server. Plain values: who read them from flags or the environment is not known here. */

export interface ServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Empty: no key is asked for. */
  readonly apiKeys: readonly string[];
  /** Origins of other sites' pages that may call; empty: none. '*': all. */
  readonly corsOrigins: readonly string[];
  readonly maxBodyBytes: number;
  readonly maxHeaderBytes: number;
  readonly maxConnections: number;
  /** A client must send its whole request within this. */
  readonly requestTimeoutMs: number;
  readonly maxSockets: number;
  readonly maxFrameBytes: number;
  /** Lanes, running and waiting frames of one socket. */
  readonly maxFramesPerSocket: number;
  /** Unsent bytes above which a stream stops pulling tokens. */
  readonly maxBufferedBytes: number;
  /** A paused reader is cut after this. */
  readonly slowReaderTimeoutMs: number;
  readonly pingIntervalMs: number;
  /** A socket with nothing running is closed after this. */
  readonly socketIdleTimeoutMs: number;
  readonly maxStoredResponses: number;
  readonly maxStoredBytes: number;
  readonly maxStoredAgeMs: number;
  /** Sequences one HTTP request may ask for: prompts times n. */
  readonly maxSequencesPerRequest: number;
  /** A running step loop that finished no step for this long is not ready. */
  readonly readyStallMs: number;
  /** An idle server decodes one token anew when its last proof is older. */
  readonly readyProofMs: number;
  readonly web:
    | {
        /** Searched in order for index.html and assets. */
        readonly directories: readonly string[];
        /** '/assets/vendor/x.js' -> file on disk. */
        readonly vendor: Readonly<Record<string, string>>;
      }
    | undefined;
}

export const defaultServerOptions: ServerOptions = {
  host: '127.0.0.1',
  port: 8000,
  apiKeys: [],
  corsOrigins: [],
  maxBodyBytes: 4 << 20,
  maxHeaderBytes: 16 << 10,
  maxConnections: 4096,
  requestTimeoutMs: 30_000,
  maxSockets: 1024,
  maxFrameBytes: 4 << 20,
  maxFramesPerSocket: 64,
  maxBufferedBytes: 256 << 10,
  slowReaderTimeoutMs: 30_000,
  pingIntervalMs: 20_000,
  socketIdleTimeoutMs: 600_000,
  maxStoredResponses: 1000,
  maxStoredBytes: 128 << 20,
  maxStoredAgeMs: 3_600_000,
  maxSequencesPerRequest: 128,
  readyStallMs: 10_000,
  readyProofMs: 15_000,
  web: undefined,
};
