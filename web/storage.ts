/** Conversation, settings and theme in the browser's storage, so that they survive a reload. */

import { type Conversation, emptyConversation } from './conversation.ts';
import { restoreSettings, type Settings } from './settings.ts';

/** The part of localStorage that is used. */
export interface KeyValueStore {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

const CONVERSATION_KEY = 'nvlm.conversation';
const SETTINGS_KEY = 'nvlm.settings';

/** What was saved, or null when nothing was or it cannot be read. */
function read(store: KeyValueStore, key: string): unknown {
  try {
    return JSON.parse(store.getItem(key) ?? 'null');
  } catch {
    return null;
  }
}

/** False when the browser refuses (storage full or switched off). */
function write(store: KeyValueStore, key: string, value: unknown): boolean {
  try {
    store.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

export function loadConversation(store: KeyValueStore): Conversation {
  const stored = read(store, CONVERSATION_KEY);
  const isConversation =
    typeof stored === 'object' &&
    stored !== null &&
    (stored as Conversation).version === 1 &&
    typeof (stored as Conversation).turns === 'object' &&
    typeof (stored as Conversation).chosen === 'object';
  return isConversation ? (stored as Conversation) : emptyConversation();
}

export function saveConversation(store: KeyValueStore, conversation: Conversation): boolean {
  return write(store, CONVERSATION_KEY, conversation);
}

export function loadSettings(store: KeyValueStore): Settings {
  return restoreSettings(read(store, SETTINGS_KEY));
}

export function saveSettings(store: KeyValueStore, settings: Settings): boolean {
  return write(store, SETTINGS_KEY, settings);
}
