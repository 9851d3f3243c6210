/** Refusals of model files, references and downloads: what an operator sees when a model does not load. */

/** Code -> what happened, in one clause. Codes are stable and never reused. */
export const CHECKPOINT_ERRORS = {
  CHECKPOINT_NOT_FOUND: 'the path of the model, or a file the model needs, does not exist',
  CHECKPOINT_FORMAT_UNKNOWN: 'the path is neither a Hugging Face directory nor a GGUF file',
  CHECKPOINT_TRUNCATED: 'a file ends before the data it announces',
  CHECKPOINT_HEADER_INVALID: 'the header of a file breaks the rules of its format',
  CHECKPOINT_LIMIT_EXCEEDED: 'a count or length in a header is beyond what the reader accepts',
  CHECKPOINT_TENSOR_INVALID: 'a tensor has an impossible shape, byte range or name',
  CHECKPOINT_TYPE_UNSUPPORTED: 'a tensor is stored in a type that no kernel reads',
  CHECKPOINT_SHARD_MISSING: 'the index names a shard or tensor that is not there',
  CHECKPOINT_CONFIG_INVALID: 'a configuration file is not valid or lacks a needed key',
  CHECKPOINT_ARCHITECTURE_UNSUPPORTED:
    'the GGUF architecture, or a feature of it, is not supported',
  CHECKPOINT_TOKENIZER_UNSUPPORTED:
    'the tokenizer of the checkpoint is of a kind that is not supported',
  REFERENCE_INVALID: 'the model reference is not of a known form',
  DOWNLOAD_FAILED:
    'a download could not be finished; what was received is kept where the source can resume',
  DOWNLOAD_CORRUPT: 'a download has the wrong length or checksum; it was removed',
  DOWNLOAD_ABORTED: 'the download was cancelled by its caller',
  CACHE_DISK_FULL: 'the disk of the model cache has no room left',
  CACHE_UNUSABLE: 'the model cache directory cannot be written',
} as const;

export type CheckpointErrorCode = keyof typeof CHECKPOINT_ERRORS;

/** Where in a checkpoint the refusal happened, and what was compared. */
export interface CheckpointErrorDetail {
  readonly file?: string;
  readonly tensor?: string;
  readonly expected?: string;
  readonly received?: string;
}

/** A refused model file, reference or download. The message names file, tensor, expected and received. */
export class CheckpointError extends Error {
  readonly code: CheckpointErrorCode;
  readonly detail: CheckpointErrorDetail;
  constructor(
    code: CheckpointErrorCode,
    summary: string,
    detail: CheckpointErrorDetail = {},
    options?: ErrorOptions,
  ) {
    const parts = [
      detail.file === undefined ? '' : `${detail.file}: `,
      detail.tensor === undefined ? '' : `tensor '${shorten(detail.tensor)}': `,
      summary,
      detail.expected === undefined ? '' : `; expected ${detail.expected}`,
      detail.received === undefined ? '' : `, received ${shorten(detail.received)}`,
    ];
    super(parts.join(''), options);
    this.name = 'CheckpointError';
    this.code = code;
    this.detail = detail;
  }
}

/** Text from a file, fit for one line of a message. */
export function shorten(text: string, limit = 200): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: names in hostile files carry them
  const clean = text.replace(/[\u0000-\u001f\u007f]/g, '\u00b7');
  return clean.length <= limit ? clean : `${clean.slice(0, limit)}… (${clean.length} characters)`;
}

/** A JSON value from a file, fit for a message: nesting that would exhaust the stack is not printed. */
export function showValue(value: unknown): string {
  try {
    return shorten(JSON.stringify(value) ?? 'nothing');
  } catch {
    return 'a value nested too deep to show';
  }
}
