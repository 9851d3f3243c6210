/** Copying, with a word on whether it worked, and saving files. */

import { announce } from './announcer.ts';

const SHOWN_MS = 1500;

/** Copies and marks the button as done for a moment. Pages served over plain HTTP have no clipboard API: falls back. */
export function copyText(text: string, button: HTMLButtonElement): void {
  const succeed = (): void => {
    button.classList.add('is-done');
    setTimeout(() => button.classList.remove('is-done'), SHOWN_MS);
    announce('Copied');
  };
  const fallBack = (): void => {
    if (copyBySelection(text)) succeed();
    else announce('Copying failed: select the text and copy it by hand');
  };
  if (navigator.clipboard === undefined) fallBack();
  else navigator.clipboard.writeText(text).then(succeed, fallBack);
}

function copyBySelection(text: string): boolean {
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'visually-hidden';
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand('copy');
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return isCopied;
}

/** Offers a text as a file to save. */
export function saveFile(name: string, type: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 0);
}
