/** Questions for an empty conversation: short, and kind to small models. */
export const EXAMPLES: readonly { readonly title: string; readonly prompt: string }[] = [
  { title: 'Explain', prompt: 'Why is the sky blue? Explain it to a ten-year-old.' },
  { title: 'Write', prompt: 'Write a short poem about the sea in winter.' },
  { title: 'List', prompt: 'Give me five ideas for a rainy afternoon.' },
  { title: 'Code', prompt: 'Write a Python function that reverses a string.' },
];
