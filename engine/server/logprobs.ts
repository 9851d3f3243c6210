/** Log-probabilities in the shapes of the three interfaces. */
import type { LogprobItem } from '#engine/protocol/responses-event.ts';
import type { TokenLogprobs } from '#engine/scheduler/request.ts';
import type { Tokenizer } from '#engine/tokenizer/tokenizer.ts';
import type { GeneratedToken } from './text-stream.ts';

/** How a token is named: its text, or `token_id:N` so that it stays unique. */
export type TokenName = (tokenId: number) => string;

export const tokenNamer = (tokenizer: Tokenizer, asIds: boolean | undefined): TokenName =>
  asIds === true ? (id) => `token_id:${id}` : (id) => tokenizer.decode([id]);

/** JSON has no -Infinity: banned tokens get vLLM's floor. */
const finite = (logprob: number): number => Math.max(logprob, -9999);

/** The `logprobs.content` items of chat completions, also the `logprobs` of the Responses interface. */
export function logprobItems(
  tokenizer: Tokenizer,
  tokens: readonly GeneratedToken[],
  name: TokenName,
): LogprobItem[] {
  const item = (tokenId: number, logprob: number) => ({
    token: name(tokenId),
    bytes: [...tokenizer.tokenBytes(tokenId)],
    logprob: finite(logprob),
  });
  return tokens.flatMap(({ tokenId, logprobs }) =>
    logprobs === undefined
      ? []
      : [
          {
            ...item(tokenId, logprobs.logprob),
            top_logprobs: logprobs.top.map((other) => item(other.tokenId, other.logprob)),
          },
        ],
  );
}

export interface CompletionLogprobs {
  readonly text_offset: number[];
  readonly token_logprobs: (number | null)[];
  readonly tokens: string[];
  readonly top_logprobs: (Record<string, number> | null)[];
}

/** The parallel lists of /v1/completions; `offset` is where the first token's text starts in the choice's text. */
export function completionLogprobs(
  tokens: readonly {
    readonly tokenId: number;
    readonly logprobs: TokenLogprobs | null | undefined;
  }[],
  name: TokenName,
  offset: number,
): CompletionLogprobs {
  const lists: CompletionLogprobs = {
    text_offset: [],
    token_logprobs: [],
    tokens: [],
    top_logprobs: [],
  };
  let at = offset;
  for (const { tokenId, logprobs } of tokens) {
    const token = name(tokenId);
    lists.text_offset.push(at);
    lists.tokens.push(token);
    lists.token_logprobs.push(logprobs ? finite(logprobs.logprob) : null);
    lists.top_logprobs.push(
      logprobs
        ? Object.fromEntries([
            ...logprobs.top.map((other) => [name(other.tokenId), finite(other.logprob)] as const),
            [token, finite(logprobs.logprob)] as const,
          ])
        : null,
    );
    at += token.length;
  }
  return lists;
}

/** vLLM's `prompt_logprobs`: per prompt token null or {id: {logprob, rank, decoded_token}}. */
export function promptLogprobsField(
  promptIds: ArrayLike<number>,
  logprobs: readonly (TokenLogprobs | null)[],
  name: TokenName,
): (Record<string, unknown> | null)[] {
  return logprobs.map((entry, index) => {
    if (entry === null) return null;
    const fields: Record<string, unknown> = {};
    const tokenId = promptIds[index] as number;
    fields[tokenId] = { logprob: finite(entry.logprob), rank: null, decoded_token: name(tokenId) };
    entry.top.forEach((other, rank) => {
      fields[other.tokenId] = {
        logprob: finite(other.logprob),
        rank: rank + 1,
        decoded_token: name(other.tokenId),
      };
    });
    return fields;
  });
}
