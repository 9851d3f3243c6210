/** What can go wrong between us and the API server. */

export const KUBE_ERRORS = {
  KUBE_STATUS: {
    meaning: 'The API server answered with a Status; `status` and `reason` say which.',
    remedy:
      'read its reason: Forbidden is a missing right of the operator, Invalid a refused object, Conflict another writer',
  },
  KUBE_UNREACHABLE: {
    meaning: 'No connection, or it broke before the answer was complete.',
    remedy: 'look at the network and the API server; the operator tries again with growing pauses',
  },
  KUBE_TIMEOUT: {
    meaning: 'No answer within the time given.',
    remedy: 'look at the load of the API server; the operator tries again',
  },
  KUBE_ABORTED: {
    meaning: 'The caller gave up, by its signal.',
    remedy: 'nothing: the operator is stopping or has lost its Lease',
  },
  KUBE_PROTOCOL: {
    meaning: 'The answer is not the JSON that was asked for.',
    remedy: 'look for a proxy between the operator and the API server',
  },
  KUBE_CONFIG_INVALID: {
    meaning: 'There is no kubeconfig where one was looked for, or it cannot be read.',
    remedy: 'name one with --kubeconfig or KUBECONFIG',
  },
} as const;
export type KubeErrorCode = keyof typeof KUBE_ERRORS;

export interface KubeErrorDetail {
  /** HTTP status, with KUBE_STATUS. */
  readonly status?: number;
  /** Machine-readable reason of the Status, such as NotFound, Conflict, AlreadyExists, Expired, Invalid. */
  readonly reason?: string;
  readonly retryAfterSeconds?: number;
  /** Fields that the API server names. */
  readonly causes?: readonly {
    readonly field?: string;
    readonly message?: string;
    readonly reason?: string;
  }[];
  readonly cause?: unknown;
}

export class KubeError extends Error {
  readonly code: KubeErrorCode;
  readonly status: number | undefined;
  readonly reason: string | undefined;
  readonly retryAfterSeconds: number | undefined;
  readonly causes: NonNullable<KubeErrorDetail['causes']>;

  constructor(code: KubeErrorCode, message: string, detail: KubeErrorDetail = {}) {
    super(message, { cause: detail.cause });
    this.name = 'KubeError';
    this.code = code;
    this.status = detail.status;
    this.reason = detail.reason;
    this.retryAfterSeconds = detail.retryAfterSeconds;
    this.causes = detail.causes ?? [];
  }
}

export const hasStatus = (error: unknown, status: number): error is KubeError =>
  error instanceof KubeError && error.status === status;
export const isNotFound = (error: unknown): boolean => hasStatus(error, 404);

/** The object breaks a rule of its kind, an immutable field among them: the same request will never succeed. */
export const isInvalid = (error: unknown): boolean => hasStatus(error, 422);
/** AlreadyExists on create; a stale resourceVersion or another field manager otherwise. */
export const isConflict = (error: unknown): boolean => hasStatus(error, 409);
/** The resourceVersion or continue token is too old: list again. */
export const isGone = (error: unknown): boolean =>
  error instanceof KubeError && (error.status === 410 || error.reason === 'Expired');
