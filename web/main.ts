/** The composition root: builds the parts, joins them, starts. */

import { AnswerAnnouncer } from './announcer.ts';
import { Banner } from './banner.ts';
import { Chat } from './chat.ts';
import { saveFile } from './clipboard.ts';
import { Composer } from './composer.ts';
import { Connection, type ConnectionState } from './connection.ts';
import { activePath, isRunning } from './conversation.ts';
import { ConversationView } from './conversation-view.ts';
import { Dashboard } from './dashboard.ts';
import { byId, element } from './dom.ts';
import { type AdviceAction, adviceFor } from './error-advice.ts';
import { EXAMPLES } from './examples.ts';
import { toJson, toMarkdown } from './export.ts';
import { MarkdownRenderer } from './markdown.ts';
import { PictureStrip } from './picture-strip.ts';
import { type Picture, PictureStore } from './pictures.ts';
import { fetchMetrics, fetchModels, HttpError, type ModelEntry, openSocket } from './server.ts';
import { SettingsView } from './settings-view.ts';
import { loadConversation, loadSettings, saveConversation, saveSettings } from './storage.ts';
import { bindTabs } from './tabs.ts';
import { bindThemeToggle } from './theme.ts';
import { ACTION_LABELS } from './turn-view.ts';
import DOMPurify from './vendor/dompurify.js';
import { Marked } from './vendor/marked.js';

/** While an answer streams it is saved this often, and always when the page is left. */
const SAVE_MS = 500;

const settings = loadSettings(localStorage);
const pictures = new PictureStore();
const newId = (): string =>
  `t${crypto.getRandomValues(new Uint32Array(2)).reduce((id, word) => id + word.toString(36), '')}`;
const banner = new Banner();
const announcer = new AnswerAnnouncer();
let models: readonly ModelEntry[] = [];

const connection = new Connection({
  openSocket: () => openSocket(settings.apiKey),
  setTimer: (callback, ms) => {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
  random: Math.random,
  onEvent: (streamId, event) => chat.receive(streamId, event),
  onState: showConnection,
});

const chat = new Chat(
  {
    connection,
    settings: () => settings,
    pictureUrl: (id) => pictures.urlOf(id),
    now: Date.now,
    newId,
    onChange: () => {
      scheduleDraw();
      scheduleSave();
    },
    onError: (error) => {
      const { title, todo } = adviceFor(error);
      banner.show('server', { title, text: `${todo} (${error.message})` });
    },
  },
  loadConversation(localStorage),
);

const settingsView = new SettingsView(settings, () => {
  saveSettings(localStorage, settings);
  void loadModels();
  connection.retryNow();
});
const strip = new PictureStrip({
  newId,
  changed: () => composer.refresh(),
  refused: (message) => banner.show('picture', { title: 'Not added', text: message }),
});
const composer = new Composer(strip, { ask, stop: () => chat.stop() });
const view = new ConversationView(
  {
    list: byId('turns', HTMLElement),
    scroller: byId('scroller', HTMLElement),
    jump: byId('jump', HTMLElement),
  },
  new MarkdownRenderer(new Marked(), DOMPurify),
  {
    edit: (questionId, text) => {
      chat.edit(questionId, text);
      view.follow();
    },
    regenerate: (answerId) => chat.regenerate(answerId),
    show: (turnId) => chat.show(turnId),
    follow: (action, answer) => followAdvice(action, answer.id),
    pictureUrl: (id) => pictures.urlOf(id),
  },
);
const dashboard = new Dashboard(byId('dashboard', HTMLElement), () =>
  fetchMetrics(settings.apiKey),
);

function ask(text: string, added: readonly Picture[]): void {
  banner.clear('picture');
  for (const picture of added) {
    void pictures.add(picture).then((isKept) => {
      if (isKept) return;
      banner.show('picture', {
        title: 'The picture is not being saved',
        text: 'The browser’s database is full or switched off: it will be gone after a reload.',
      });
    });
  }
  chat.ask(
    text,
    added.map(({ id, name, width, height }) => ({ id, name, width, height })),
  );
  view.follow();
}

function followAdvice(action: AdviceAction, answerId: string): void {
  if (action === 'settings') settingsView.open();
  else if (action === 'new-chat') newChat();
  else chat.regenerate(answerId);
}

function newChat(): void {
  chat.clear();
  pictures.keepOnly(new Set());
  composer.focus();
}

let isDrawScheduled = false;

/** At most one drawing per frame, however many tokens come. */
function scheduleDraw(): void {
  if (isDrawScheduled) return;
  isDrawScheduled = true;
  requestAnimationFrame(() => {
    isDrawScheduled = false;
    draw();
  });
}

function draw(): void {
  const { conversation, running } = chat;
  const path = activePath(conversation);
  byId('empty', HTMLElement).hidden = path.length > 0;
  byId('export', HTMLButtonElement).disabled = path.length === 0;
  view.draw(conversation);
  composer.setRunning(running !== null);
  announcer.update(running);
  const model = models.find(({ id }) => id === settings.model) ?? models[0];
  const used = path.findLast((turn) => turn.kind === 'assistant' && turn.usage !== null);
  const usedTokens = used?.kind === 'assistant' ? used.usage?.total_tokens : undefined;
  byId('context-use', HTMLElement).textContent =
    usedTokens === undefined || model?.max_model_len === undefined
      ? ''
      : `${usedTokens} of ${model.max_model_len} tokens of context used`;
}

let saveTimer: ReturnType<typeof setTimeout> | null = null;

function scheduleSave(): void {
  saveTimer ??= setTimeout(save, SAVE_MS);
}

function save(): void {
  if (saveTimer !== null) clearTimeout(saveTimer);
  saveTimer = null;
  if (saveConversation(localStorage, chat.conversation)) banner.clear('storage');
  else
    banner.show('storage', {
      title: 'This conversation is not being saved',
      text: 'The browser’s storage is full or switched off. Export the conversation to keep it.',
    });
}

function showConnection(state: ConnectionState): void {
  if (state.phase === 'open') banner.clear('server');
  if (state.phase === 'open' || state.phase === 'idle') banner.clear('connection');
  if (state.phase !== 'waiting' || !Object.values(chat.conversation.turns).some(isRunning)) return;
  if (!state.wasOpen) void loadModels(false);
  if (state.attempt < 2) return;
  banner.show('connection', {
    title: 'The connection is lost',
    text: `The answer goes on when it is back. Next attempt in ${Math.ceil(state.delayMs / 1000)} s.`,
    action: { label: 'Try now', run: () => connection.retryNow() },
  });
}

/**
 * Also tells whether the server takes the key, which a refused WebSocket does not say, and whether it can be reached;
 * `reportsSilence` is false where the lost connection is told already.
 */
async function loadModels(reportsSilence = true): Promise<void> {
  try {
    models = await fetchModels(settings.apiKey);
    banner.clear('server');
  } catch (cause) {
    if (cause instanceof HttpError && cause.status === 401) {
      const { title, todo } = adviceFor({ code: 'invalid_api_key', message: '' });
      banner.show('server', {
        title,
        text: todo,
        action: { label: ACTION_LABELS.settings, run: () => settingsView.open() },
      });
    } else if (reportsSilence) {
      banner.show('server', {
        title: 'The server does not answer',
        text: 'Check that the engine runs and that this page’s address is right.',
        action: { label: ACTION_LABELS.retry, run: () => void loadModels() },
      });
    }
  }
  settingsView.setModels(models.map(({ id }) => id));
  const name = models.find(({ id }) => id === settings.model)?.id ?? models[0]?.id ?? '';
  const served = models.find(({ id }) => id === name);
  strip.setVision(served?.vision ?? null);
  byId('model-name', HTMLElement).textContent = name;
  byId('model-name', HTMLElement).title = name;
  byId('empty-model', HTMLElement).textContent =
    name === '' ? '' : `You are talking to ${name}, running on this server.`;
  scheduleDraw();
}

byId('examples', HTMLElement).append(
  ...EXAMPLES.map(({ title, prompt }) => {
    const choice = element('button', { type: 'button' }, element('strong', {}, title), prompt);
    choice.addEventListener('click', () => {
      ask(prompt, []);
      composer.focus();
    });
    return element('li', {}, choice);
  }),
);
byId('new-chat', HTMLButtonElement).addEventListener('click', newChat);
const exportMenu = byId('export-menu', HTMLElement);
byId('export-markdown', HTMLButtonElement).addEventListener('click', () => {
  exportMenu.hidePopover();
  const text = toMarkdown(chat.conversation, settings.systemPrompt, Date.now());
  saveFile('conversation.md', 'text/markdown', text);
});
byId('export-json', HTMLButtonElement).addEventListener('click', () => {
  exportMenu.hidePopover();
  const text = toJson(chat.conversation, settings.systemPrompt, Date.now());
  saveFile('conversation.json', 'application/json', text);
});
bindThemeToggle(byId('theme', HTMLButtonElement));
bindTabs((name) => dashboard.setVisible(name === 'dashboard'));
addEventListener('pagehide', save);
addEventListener('online', () => connection.retryNow());
addEventListener('offline', () => connection.reconnect());
draw();
composer.focus();
void loadModels();
void dashboard.run();
void chat.resumeRunning(pictures.loaded);
void pictures.loaded.then(draw);
