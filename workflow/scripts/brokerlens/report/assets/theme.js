(function () {
  "use strict";
  // Before anything is painted: the theme that the reader chose last time. Report viewers may forbid storage.
  try {
    var chosen = localStorage.getItem("brokerlens-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch (error) { /* without storage the system's theme stands */ }
})();
