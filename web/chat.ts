/** The conversation's verbs: ask, edit, regenerate, stop, and what arriving events do. Knows no DOM. */

import { applyEvent } from './answer.ts';
import type { Connection } from './connection.ts';
import {
  type AssistantTurn,
  activePath,
  addTurn,
  type Conversation,
  choose,
  emptyConversation,
  isRunning,
  newAnswer,
  type PictureRef,
  pathTo,
  type UserTurn,
} from './conversation.ts';
import type { ServerEvent, WireError } from './protocol.ts';
import { createRequest } from './request.ts';
import type { Settings } from './settings.ts';

export interface ChatDependencies {
  readonly connection: Pick<Connection, 'create' | 'resume' | 'cancel' | 'drop'>;
  readonly settings: () => Settings;
  /** data: URL of a picture of the conversation; undefined when the browser has lost it. */
  readonly pictureUrl: (id: string) => string | undefined;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** A fresh id, unique in the conversation; also the lane's name on the wire. */
  readonly newId: () => string;
  /** Called after every change; with the answer that changed when only its content did. */
  readonly onChange: (answer?: AssistantTurn) => void;
  /** An error that belongs to no answer. */
  readonly onError: (error: WireError) => void;
}

const LOST_RESPONSE_CODES: ReadonlySet<string | null> = new Set([
  'response_not_found',
  'previous_response_not_found',
]);

export class Chat {
  readonly #dependencies: ChatDependencies;
  #conversation: Conversation;
  /** Answers asked for by previous_response_id: if the engine has forgotten that one, they are asked again in full. */
  readonly #continued = new Set<string>();

  constructor(dependencies: ChatDependencies, conversation: Conversation) {
    this.#dependencies = dependencies;
    this.#conversation = conversation;
  }

  get conversation(): Conversation {
    return this.#conversation;
  }

  /** The answer now being written on the branch on show. */
  get running(): AssistantTurn | null {
    return activePath(this.#conversation).find(isRunning) ?? null;
  }

  /** Asks at the end of the branch on show. */
  ask(text: string, pictures: readonly PictureRef[] = []): void {
    const last = activePath(this.#conversation).at(-1);
    this.#askUnder(last?.id ?? null, text, pictures);
  }

  /** Asks a past question in other words: a new branch beside the old one. */
  edit(questionId: string, text: string): void {
    const question = this.#conversation.turns[questionId];
    if (question?.kind !== 'user') return;
    this.#askUnder(question.parentId, text, question.pictures ?? []);
  }

  /** Answers the same question again: a new branch beside the old answer. */
  regenerate(answerId: string): void {
    const answer = this.#conversation.turns[answerId];
    const question = this.#conversation.turns[answer?.parentId ?? ''];
    if (question?.kind === 'user') this.#answer(question);
  }

  /** Stops the running answer and keeps what has come. */
  stop(): void {
    const answer = this.running;
    if (answer === null) return;
    this.#dependencies.connection.cancel(answer.id);
    // The reader sees it stop now; a late terminal event only adds exact usage.
    answer.status = 'cancelled';
    answer.progress = null;
    this.#dependencies.onChange();
  }

  show(turnId: string): void {
    choose(this.#conversation, turnId);
    this.#dependencies.onChange();
  }

  /** Leaves the conversation for a new one; whatever runs is stopped. */
  clear(): void {
    for (const turn of Object.values(this.#conversation.turns)) {
      if (isRunning(turn)) this.#dependencies.connection.cancel(turn.id);
    }
    this.#conversation = emptyConversation();
    this.#dependencies.onChange();
  }

  /**
   * After a reload, before the first question: goes on with answers that were being written. Those that the engine had not
   * named yet are asked again when `picturesLoaded` settles, since their pictures go along, unless they are stopped by then.
   */
  async resumeRunning(picturesLoaded: Promise<void>): Promise<void> {
    const left = Object.values(this.#conversation.turns).filter(isRunning);
    for (const { id, responseId, lastSequence } of left) {
      if (responseId !== null) this.#dependencies.connection.resume(id, responseId, lastSequence);
    }
    await picturesLoaded;
    for (const turn of left) {
      const isLeft = this.#conversation.turns[turn.id] === turn && isRunning(turn);
      if (isLeft && turn.responseId === null) this.#send(turn, false);
    }
  }

  /** One event from the connection, in order and never twice. */
  receive(streamId: string | null, event: ServerEvent): void {
    const answer = this.#conversation.turns[streamId ?? ''];
    if (answer?.kind !== 'assistant') {
      if (event.type === 'error' && streamId === null) this.#dependencies.onError(event.error);
      return;
    }
    if (answer.status === 'cancelled') {
      this.#receiveAfterStop(answer, event);
      return;
    }
    if (
      event.type === 'error' &&
      LOST_RESPONSE_CODES.has(event.error.code) &&
      answer.responseId === null &&
      this.#continued.delete(answer.id)
    ) {
      this.#send(answer, true);
      return;
    }
    applyEvent(answer, event, this.#dependencies.now());
    this.#dependencies.onChange(isRunning(answer) ? answer : undefined);
  }

  #receiveAfterStop(answer: AssistantTurn, event: ServerEvent): void {
    if (!('response' in event)) return;
    answer.responseId = event.response.id;
    answer.usage = event.response.usage ?? answer.usage;
    this.#dependencies.onChange();
  }

  #askUnder(parentId: string | null, text: string, pictures: readonly PictureRef[]): void {
    const { newId, now } = this.#dependencies;
    const question: UserTurn = {
      kind: 'user',
      id: newId(),
      parentId,
      createdAt: now(),
      text,
      ...(pictures.length > 0 && { pictures }),
    };
    addTurn(this.#conversation, question);
    this.#answer(question);
  }

  #answer(question: UserTurn): void {
    const { newId, now } = this.#dependencies;
    this.stop();
    const answer = newAnswer(newId(), question.id, now());
    addTurn(this.#conversation, answer);
    for (const turn of pathTo(this.#conversation, question)) choose(this.#conversation, turn.id);
    this.#send(answer, false);
    this.#dependencies.onChange();
  }

  #send(answer: AssistantTurn, wholeHistory: boolean): void {
    const { connection, settings, pictureUrl } = this.#dependencies;
    const question = this.#conversation.turns[answer.parentId ?? ''];
    if (question?.kind !== 'user') return;
    const request = createRequest(
      this.#conversation,
      question,
      answer.id,
      settings(),
      wholeHistory,
      pictureUrl,
    );
    if (request.previous_response_id !== undefined) this.#continued.add(answer.id);
    connection.create(request);
  }
}
