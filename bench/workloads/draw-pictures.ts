/**
 * Draws the six pictures of the study's image questions, which show what the study's own did: `node bench/workloads/draw-pictures.ts`.
 * What it writes is committed: text is drawn with the machine's DejaVu fonts (Debian: fonts-dejavu-core), which others may lack.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { STUDY_PICTURES } from '../study-workload.ts';

const FONT = '/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf';

interface Drawing {
  readonly width: number;
  readonly height: number;
  readonly background: string;
  /** SVG elements on it. */
  readonly parts: string;
}

const rows = (count: number, draw: (i: number) => string): string =>
  Array.from({ length: count }, (_, i) => draw(i)).join('');

const text = (
  x: number,
  y: number,
  size: number,
  words: string,
  more = 'text-anchor="start"',
): string => `<text x="${x}" y="${y}" font-size="${size}" ${more}>${words}</text>`;

const BOLD = 'font-weight="700"';
const CENTRED = 'text-anchor="middle"';
const CENTRED_BOLD = `${CENTRED} ${BOLD}`;

/** Lines of text one below the other, `step` apart. */
const lines = (
  x: number,
  y: number,
  step: number,
  size: number,
  words: readonly string[],
  more: string,
): string => rows(words.length, (i) => text(x, y + i * step, size, words[i]!, more));

/** A cat that does not believe its computer: the first build after a long day is green. */
const meme: Drawing = {
  width: 640,
  height: 480,
  background: '#3b4252',
  parts: `
    <circle cx="320" cy="250" r="300" fill="#4c566a"/>
    <rect y="372" width="640" height="108" fill="#8d6748"/>
    <rect y="372" width="640" height="8" fill="#74523a"/>
    <path d="M110 372 q-4 -120 100 -130 q104 10 100 130 z" fill="#e8a050"/>
    <path d="M104 200 l-6 -104 l74 46 q38 -10 76 0 l74 -46 l-6 104 q10 98 -106 104 q-116 -6 -106 -104 z" fill="#f0ae5e"/>
    <path d="M112 132 l-2 -16 l36 26 q-20 8 -30 24 z M308 132 l2 -16 l-36 26 q20 8 30 24 z" fill="#f7c9b0"/>
    <path d="M194 142 l8 36 l8 -30 l8 30 l8 -36" fill="#c97f34"/>
    <g stroke="#c97f34" stroke-width="7" stroke-linecap="round"><path d="M110 230 h30 M112 252 h26 M280 230 h30 M282 252 h26"/></g>
    <ellipse cx="164" cy="208" rx="30" ry="27" fill="#fdfdf4"/>
    <ellipse cx="256" cy="208" rx="30" ry="27" fill="#fdfdf4"/>
    <circle cx="180" cy="214" r="13" fill="#1d1f24"/>
    <circle cx="272" cy="214" r="13" fill="#1d1f24"/>
    <circle cx="184" cy="209" r="4" fill="#ffffff"/>
    <circle cx="276" cy="209" r="4" fill="#ffffff"/>
    <path d="M132 178 h66 v22 h-66 z M222 178 h66 v22 h-66 z" fill="#f0ae5e"/>
    <path d="M132 200 h66 M222 200 h66" stroke="#8a5522" stroke-width="6" stroke-linecap="round"/>
    <path d="M200 238 h20 l-10 12 z" fill="#d1577a"/>
    <path d="M210 250 v10 M186 272 q24 -16 48 0" fill="none" stroke="#5e3a1a" stroke-width="5" stroke-linecap="round"/>
    <g stroke="#fff3df" stroke-width="3" stroke-linecap="round"><path d="M150 248 l-62 -8 M150 258 l-60 8 M270 248 l62 -8 M270 258 l60 8"/></g>
    <path d="M150 372 q0 -34 30 -34 q26 0 26 34 z M214 372 q0 -34 30 -34 q26 0 26 34 z" fill="#f0ae5e"/>
    <path d="M388 372 l14 -176 h196 l-14 176 z" fill="#d8dee9"/>
    <path d="M400 362 l12 -156 h176 l-12 156 z" fill="#11161f"/>
    <path d="M330 372 h270 l14 20 h-298 z" fill="#b6bfcc"/>
    <circle cx="493" cy="262" r="38" fill="#2fa84f"/>
    <path d="M474 262 l14 15 l26 -30" fill="none" stroke="#ffffff" stroke-width="9" stroke-linecap="round" stroke-linejoin="round"/>
    ${text(491, 336, 22, '0 errors', 'text-anchor="middle" fill="#7be495" font-family="DejaVu Sans Mono" font-weight="700"')}
    ${lines(320, 64, 388, 40, ['IT COMPILED THE FIRST TIME', 'SOMETHING IS VERY WRONG'], `${CENTRED_BOLD} font-family="DejaVu Sans Condensed" fill="#ffffff" stroke="#000000" stroke-width="7" stroke-linejoin="round" paint-order="stroke"`)}`,
};

const objects: Drawing = {
  width: 900,
  height: 300,
  background: '#f4f1ea',
  parts: `
    <rect y="212" width="900" height="88" fill="#d9cfbd"/>
    <ellipse cx="158" cy="250" rx="106" ry="15" fill="#b8ab94"/>
    <path d="M70 110 l36 -38 h124 v130 l-36 46 h-124 z" fill="#c62828"/>
    <path d="M70 110 h124 v138 h-124 z" fill="#e53935"/>
    <path d="M70 110 l36 -38 h124 l-36 38 z" fill="#ef7b78"/>
    <path d="M194 110 l36 -38 v130 l-36 46 z" fill="#a81f1f"/>
    <ellipse cx="452" cy="252" rx="96" ry="14" fill="#b8ab94"/>
    <circle cx="450" cy="158" r="94" fill="#2e9e4f"/>
    <circle cx="450" cy="158" r="94" fill="url(#ball)"/>
    <ellipse cx="416" cy="114" rx="24" ry="15" fill="#ffffff" opacity="0.55" transform="rotate(-35 416 114)"/>
    <ellipse cx="746" cy="252" rx="100" ry="15" fill="#b8ab94"/>
    <path d="M744 46 L834 236 a90 22 0 0 1 -180 0 Z" fill="#1e64c8"/>
    <path d="M744 46 L834 236 a90 22 0 0 1 -60 20 Z" fill="#174e9e"/>
    <path d="M744 46 L690 254 a90 22 0 0 1 -18 -8 Z" fill="#6da3ec"/>
    <defs><radialGradient id="ball" cx="0.35" cy="0.3" r="0.75"><stop offset="0" stop-color="#8fe3a6" stop-opacity="0.9"/><stop offset="0.55" stop-color="#2e9e4f" stop-opacity="0"/><stop offset="1" stop-color="#0d4d22" stop-opacity="0.85"/></radialGradient></defs>`,
};

/** Seen from behind, `x` its middle, `y` where the wheels stand, `scale` 1 for 100 pixels of width. */
const truck = (x: number, y: number, scale: number): string => `
  <g transform="translate(${x} ${y}) scale(${scale})">
    <ellipse cx="0" cy="2" rx="58" ry="7" fill="#2b2d31"/>
    <path d="M-42 -14 h20 v16 h-20 z M22 -14 h20 v16 h-20 z" fill="#16181b"/>
    <rect x="-50" y="-128" width="100" height="112" rx="3" fill="#f2f2ee"/>
    <path d="M0 -128 v112 M-50 -128 h100 v112 h-100 z" fill="none" stroke="#8c8f94" stroke-width="3"/>
    <path d="M-6 -84 v24 M6 -84 v24" stroke="#5c6066" stroke-width="3"/>
    <rect x="-50" y="-24" width="100" height="9" fill="#3a3d42"/>
    <rect x="-48" y="-23" width="20" height="7" fill="#ff3b30"/>
    <rect x="28" y="-23" width="20" height="7" fill="#ff3b30"/>
  </g>`;

const cone = (x: number, y: number, scale: number): string => `
  <g transform="translate(${x} ${y}) scale(${scale})">
    <path d="M-16 0 h32 v-5 h-32 z M-10 -5 l7 -40 h6 l7 40 z" fill="#f57c1f"/>
    <path d="M-7 -21 l2 -11 h10 l2 11 z" fill="#ffffff"/>
  </g>`;

/** Three lanes in perspective, from the middle one: closed on the left, a truck ahead, free on the right. */
const road: Drawing = {
  width: 800,
  height: 450,
  background: '#a9d3f2',
  parts: `
    <circle cx="120" cy="62" r="30" fill="#ffe28a"/>
    <path d="M0 200 L120 150 L210 182 L330 138 L470 184 L590 146 L720 186 L800 160 V210 H0 Z" fill="#7d9cb5"/>
    <rect y="196" width="800" height="254" fill="#79a858"/>
    <path d="M355 196 H445 L1010 450 H-210 Z" fill="#55585d"/>
    <path d="M355 196 L-210 450 h24 L357 196 Z M445 196 L1010 450 h-24 L443 196 Z" fill="#f5f5f0"/>
    ${[-1, 1]
      .map((side) =>
        [0.03, 0.1, 0.22, 0.42, 0.72]
          .map((near) => {
            const far = near * 0.72;
            const at = (depth: number, edge: number): string => {
              const half = 45 + depth * 565;
              return `${(400 + (side * half) / 3 + edge * (1 + depth * 8)).toFixed(1)} ${(196 + depth * 254).toFixed(1)}`;
            };
            return `<path d="M${at(far, -1)} L${at(far, 1)} L${at(near, 1)} L${at(near, -1)} Z" fill="#f5f5f0"/>`;
          })
          .join(''),
      )
      .join('')}
    ${truck(400, 286, 1.05)}
    <g transform="translate(264 272)">
      <path d="M-52 0 l6 -40 h6 l-4 40 z M52 0 l-6 -40 h-6 l4 40 z" fill="#6b4b2f"/>
      <rect x="-62" y="-58" width="124" height="26" fill="#ffffff" stroke="#333333" stroke-width="2"/>
      ${rows(5, (i) => `<path d="M${-60 + i * 25} -33 l14 -24 h12 l-14 24 z" fill="#d6342b"/>`)}
      <g transform="translate(0 -84)"><circle r="24" fill="#d6342b" stroke="#ffffff" stroke-width="4"/><path d="M-11 -11 L11 11 M11 -11 L-11 11" stroke="#ffffff" stroke-width="7" stroke-linecap="round"/></g>
    </g>
    ${cone(302, 298, 0.8)}${cone(262, 318, 1)}${cone(206, 342, 1.25)}
    <g transform="translate(690 206)">
      <rect x="-4" y="-30" width="8" height="46" fill="#7a7d82"/>
      <rect x="-84" y="-112" width="168" height="84" rx="6" fill="#0b6b3a" stroke="#ffffff" stroke-width="4"/>
      ${text(0, -76, 22, 'City centre', 'text-anchor="middle" fill="#ffffff" font-weight="700"')}
      <path d="M0 -64 v20 m-10 -9 l10 11 l10 -11" fill="none" stroke="#ffffff" stroke-width="6" stroke-linecap="round" stroke-linejoin="round"/>
    </g>
    <path d="M0 450 V406 Q400 346 800 406 V450 Z" fill="#1c1e22"/>
    <path d="M0 410 Q400 350 800 410" fill="none" stroke="#34373d" stroke-width="6"/>
    <path d="M130 450 a150 126 0 0 1 300 0" fill="none" stroke="#0c0d0f" stroke-width="26"/>
    <path d="M130 450 a150 126 0 0 1 300 0" fill="none" stroke="#2f3238" stroke-width="14"/>
    <rect x="236" y="396" width="88" height="54" rx="16" fill="#2f3238"/>
    ${text(560, 428, 30, '90', 'text-anchor="middle" fill="#ffffff" font-weight="700"')}
    ${text(602, 428, 16, 'km/h', 'fill="#c7cbd1"')}`,
};

const steps = [
  ['1/', 'Set smallest number/minimum to first', 'element (index 0) in the list.'],
  ['2/', 'Look for the smallest number/minimum', 'element in the list.'],
  ['3/', 'Swap that value with item at index[min].'],
  ['4/', 'Increment index of [min] to next element.'],
  ['5/', 'Repeat until last element/list is sorted!'],
] as const;

const pseudoCode: Drawing = {
  width: 720,
  height: 480,
  background: '#fffdf6',
  parts: (() => {
    let y = 118;
    const listed = steps.map(([number, ...words]) => {
      const step = [
        text(44, y, 24, number, 'font-weight="700" fill="#1e64c8"'),
        lines(92, y, 34, 24, words, 'fill="#1d1f24"'),
      ].join('');
      y += words.length * 34 + 20;
      return step;
    });
    return `
      <rect width="720" height="70" fill="#1e64c8"/>
      ${text(44, 46, 30, 'Selection sort', 'font-weight="700" fill="#ffffff"')}
      ${listed.join('')}`;
  })(),
};

const foods = [
  ['Cold chicken', 86, 34],
  ['Potato salad', 54, 38],
  ['Egg sandwiches', 76, 40],
  ['Fruit pie and cream', 32, 12],
  ['Cheese', 48, 12],
] as const;

const table: Drawing = {
  width: 760,
  height: 440,
  background: '#ffffff',
  parts: `
    <rect x="20" y="20" width="720" height="100" fill="#e3ebf7"/>
    ${text(40, 78, 22, 'Food', BOLD)}
    ${lines(396, 64, 28, 17, ['Number of people', 'who ate that food'], CENTRED_BOLD)}
    ${lines(618, 64, 28, 15.5, ['Number of people who', 'ate the food and got sick'], CENTRED_BOLD)}
    ${foods
      .map(([food, ate, sick], i) => {
        const y = 120 + i * 60;
        const shade =
          i % 2 === 1 ? `<rect x="20" y="${y}" width="720" height="60" fill="#f6f8fb"/>` : '';
        return `${shade}${text(40, y + 38, 22, food)}${text(396, y + 38, 24, String(ate), CENTRED)}${text(618, y + 38, 24, String(sick), CENTRED)}`;
      })
      .join('')}
    <g stroke="#2b3444" stroke-width="2" fill="none">
      <rect x="20" y="20" width="720" height="400"/>
      ${rows(5, (i) => `<path d="M20 ${120 + i * 60} h720"/>`)}
      <path d="M296 20 v400 M496 20 v400"/>
    </g>`,
};

/** A ring from the top, clockwise; `share` 0..1. */
function ringPart(x: number, y: number, from: number, to: number, colour: string): string {
  const at = (share: number, radius: number): string => {
    const angle = 2 * Math.PI * share - Math.PI / 2;
    return `${(x + radius * Math.cos(angle)).toFixed(2)} ${(y + radius * Math.sin(angle)).toFixed(2)}`;
  };
  const large = to - from > 0.5 ? 1 : 0;
  return `<path d="M${at(from, 104)} A104 104 0 ${large} 1 ${at(to, 104)} L${at(to, 58)} A58 58 0 ${large} 0 ${at(from, 58)} Z" fill="${colour}" stroke="#ffffff" stroke-width="3"/>`;
}

/** Only the first panel's share is the study's; the others have the shape of one. */
const panels = [
  [
    'Data center GPUs',
    [
      ['NVIDIA', 92, '#4c9a2a'],
      ['Others', 8, '#b9c0c9'],
    ],
  ],
  [
    'Foundation models',
    [
      ['Vendor A', 39, '#1e64c8'],
      ['Vendor B', 30, '#e08a1e'],
      ['Others', 31, '#b9c0c9'],
    ],
  ],
  [
    'Services',
    [
      ['Vendor C', 16, '#b4469f'],
      ['Vendor D', 12, '#2a9d8f'],
      ['Others', 72, '#b9c0c9'],
    ],
  ],
] as const;

const chart: Drawing = {
  width: 960,
  height: 480,
  background: '#ffffff',
  parts: `
    ${text(480, 46, 28, 'Generative AI market share of leading vendors, 2023', CENTRED_BOLD)}
    ${panels
      .map(([title, shares], panel) => {
        const x = 170 + panel * 310;
        const y = 232;
        let from = 0;
        const parts = shares.map(([, share, colour]) => {
          const to = from + share / 100;
          const part = ringPart(x, y, from, to, colour);
          from = to;
          return part;
        });
        const legend = shares.map(
          ([name, share, colour], i) =>
            `<rect x="${x - 92}" y="${364 + i * 34}" width="20" height="20" rx="3" fill="${colour}"/>${text(x - 62, 381 + i * 34, 20, name)}${text(x + 104, 381 + i * 34, 20, `${share} %`, 'text-anchor="end" font-weight="700"')}`,
        );
        return `${text(x, 104, 22, title, 'text-anchor="middle" font-weight="700" fill="#2b3444"')}${parts.join('')}${text(x, y + 12, 34, `${shares[0][1]} %`, CENTRED_BOLD)}${legend.join('')}`;
      })
      .join('')}`,
};

if (!existsSync(FONT)) {
  console.error(`The font ${FONT} is missing; install Debian's fonts-dejavu-core.`);
  process.exit(1);
}
const drawings = { meme, objects, road, 'pseudo-code': pseudoCode, table, chart };
for (const name of STUDY_PICTURES) {
  const { width, height, background, parts } = drawings[name];
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="DejaVu Sans" fill="#1d1f24"><rect width="${width}" height="${height}" fill="${background}"/>${parts}</svg>`;
  const png = await sharp(Buffer.from(svg))
    .removeAlpha()
    .png({ compressionLevel: 9, effort: 10 })
    .toBuffer();
  writeFileSync(join(import.meta.dirname, 'pictures', `${name}.png`), png);
  console.log(`${name}.png: ${width} x ${height}, ${png.length} bytes`);
}
