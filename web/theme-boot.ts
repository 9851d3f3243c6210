/** Runs before the first paint, as a classic script, so that a chosen theme never flashes the other one. */
{
  const theme = localStorage.getItem('nvlm.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
}
