// Sets the theme that was chosen before anything is drawn. It is no module, because those run after that.
{
  let theme = null;
  try {
    theme = localStorage.getItem("theme");
  } catch {
    // The browser keeps nothing: the system's theme it is.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
