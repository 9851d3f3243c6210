/**
 * A conversation as a tree of turns. Editing a question or regenerating an answer adds a sibling; the path that is shown
 * follows the chosen child of every turn. Plain data, so that it goes to storage and export as it is.
 */

import type { Usage, WireError } from './protocol.ts';

export type AnswerStatus =
  | 'waiting'
  | 'streaming'
  | 'completed'
  | 'incomplete'
  | 'cancelled'
  | 'failed';

export interface Progress {
  readonly phase: string;
  readonly position: number | null;
  readonly percent: number | null;
  readonly etaSeconds: number | null;
}

/** A picture of a question; its pixels are in the browser's database. */
export interface PictureRef {
  readonly id: string;
  readonly name: string;
  readonly width: number;
  readonly height: number;
}

export interface UserTurn {
  readonly kind: 'user';
  readonly id: string;
  readonly parentId: string | null;
  readonly createdAt: number;
  readonly text: string;
  readonly pictures?: readonly PictureRef[];
}

/** Times are milliseconds since the epoch, as the page saw them. */
export interface AssistantTurn {
  readonly kind: 'assistant';
  readonly id: string;
  readonly parentId: string | null;
  readonly createdAt: number;
  text: string;
  status: AnswerStatus;
  responseId: string | null;
  /** The last event applied; a resume asks for those after it. -1 before the first. */
  lastSequence: number;
  model: string | null;
  progress: Progress | null;
  incompleteReason: string | null;
  error: WireError | null;
  usage: Usage | null;
  firstTokenAt: number | null;
  lastTokenAt: number | null;
  deltaCount: number;
}

export type Turn = UserTurn | AssistantTurn;

export interface Conversation {
  readonly version: 1;
  readonly turns: Record<string, Turn>;
  /** Chosen child by parent id; the key '' holds the chosen first turn. */
  readonly chosen: Record<string, string>;
}

export function emptyConversation(): Conversation {
  return { version: 1, turns: {}, chosen: {} };
}

export function newAnswer(id: string, parentId: string, now: number): AssistantTurn {
  return {
    kind: 'assistant',
    id,
    parentId,
    createdAt: now,
    text: '',
    status: 'waiting',
    responseId: null,
    lastSequence: -1,
    model: null,
    progress: null,
    incompleteReason: null,
    error: null,
    usage: null,
    firstTokenAt: null,
    lastTokenAt: null,
    deltaCount: 0,
  };
}

export function isRunning(turn: Turn): turn is AssistantTurn {
  return turn.kind === 'assistant' && (turn.status === 'waiting' || turn.status === 'streaming');
}

/** Adds a turn and makes it the chosen child of its parent. */
export function addTurn(conversation: Conversation, turn: Turn): void {
  conversation.turns[turn.id] = turn;
  conversation.chosen[turn.parentId ?? ''] = turn.id;
}

/** All turns with the same parent, oldest first, this one included. */
export function siblings(conversation: Conversation, turn: Turn): Turn[] {
  return Object.values(conversation.turns).filter((other) => other.parentId === turn.parentId);
}

/** Shows the branch through this turn. */
export function choose(conversation: Conversation, turnId: string): void {
  const turn = conversation.turns[turnId];
  if (turn !== undefined) conversation.chosen[turn.parentId ?? ''] = turn.id;
}

/** The turns on show, first to last. */
export function activePath(conversation: Conversation): Turn[] {
  const path: Turn[] = [];
  let turn = conversation.turns[conversation.chosen[''] ?? ''];
  while (turn !== undefined) {
    path.push(turn);
    turn = conversation.turns[conversation.chosen[turn.id] ?? ''];
  }
  return path;
}

/** The turns from the first to this one, this one included. */
export function pathTo(conversation: Conversation, turn: Turn): Turn[] {
  const path: Turn[] = [];
  for (
    let step: Turn | undefined = turn;
    step !== undefined;
    step = conversation.turns[step.parentId ?? '']
  ) {
    path.unshift(step);
  }
  return path;
}
