/** The turns on show, kept in step with the conversation, and the scroll position that follows a growing answer. */

import { activePath, type Conversation, siblings } from './conversation.ts';
import type { MarkdownRenderer } from './markdown.ts';
import { AnswerView, QuestionView, type TurnActions, type TurnView } from './turn-view.ts';

/** Within this distance of the end, in pixels, the view follows. */
const FOLLOW_DISTANCE = 80;

export class ConversationView {
  readonly #list: HTMLElement;
  readonly #scroller: HTMLElement;
  readonly #jump: HTMLElement;
  readonly #renderer: MarkdownRenderer;
  readonly #actions: TurnActions;
  #views = new Map<string, TurnView>();
  #isFollowing = true;

  constructor(
    parts: { list: HTMLElement; scroller: HTMLElement; jump: HTMLElement },
    renderer: MarkdownRenderer,
    actions: TurnActions,
  ) {
    this.#list = parts.list;
    this.#scroller = parts.scroller;
    this.#jump = parts.jump;
    this.#renderer = renderer;
    this.#actions = actions;
    this.#scroller.addEventListener('scroll', () => this.#noteScroll(), { passive: true });
    this.#jump.addEventListener('click', () => this.follow());
  }

  draw(conversation: Conversation): void {
    const path = activePath(conversation);
    const views = new Map<string, TurnView>();
    for (const turn of path) {
      const view =
        this.#views.get(turn.id) ??
        (turn.kind === 'user'
          ? new QuestionView(turn, this.#actions)
          : new AnswerView(turn, this.#renderer, this.#actions));
      view.update(siblings(conversation, turn));
      views.set(turn.id, view);
    }
    this.#views = views;
    const wanted = [...views.values()].map((view) => view.element);
    // Moving elements that are in place already would drop focus and selections.
    for (const [i, node] of wanted.entries()) {
      const current = this.#list.children[i];
      if (current !== node) this.#list.insertBefore(node, current ?? null);
    }
    while (this.#list.children.length > wanted.length) this.#list.lastElementChild?.remove();
    if (this.#isFollowing) this.#toEnd();
    else this.#noteScroll();
  }

  /** Goes to the newest turn and stays there while it grows. */
  follow(): void {
    this.#isFollowing = true;
    this.#toEnd();
  }

  #toEnd(): void {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#jump.hidden = true;
  }

  #noteScroll(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    this.#isFollowing = scrollHeight - scrollTop - clientHeight < FOLLOW_DISTANCE;
    this.#jump.hidden = this.#isFollowing;
  }
}
