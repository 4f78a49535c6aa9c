/** Work that may be overtaken: a panel shows the result of the newest request and no older one. */

/**
 * Return a function that runs work for the part of the page `place`.
 *
 * While it runs, `place` is aria-busy and `note` says `waiting`; then the note says what the work
 * returned, or why it was refused. Work is given a signal that is aborted when newer work begins.
 */
export function worker(place, note) {
  let current;
  return async function run(work, waiting = "Asking the network …") {
    current?.abort();
    const mine = (current = new AbortController());
    place.setAttribute("aria-busy", "true");
    say(note, waiting);
    try {
      const news = await work(mine.signal);
      if (mine === current) say(note, news ?? "");
    } catch (error) {
      if (error.name !== "AbortError" && mine === current) say(note, error.message, true);
    } finally {
      if (mine === current) place.removeAttribute("aria-busy");
    }
  };
}

/** Write a sentence into a note; `wrong` marks it as a refusal and has it read out. */
export function say(note, text, wrong = false) {
  note.classList.toggle("wrong", wrong);
  if (wrong) note.setAttribute("role", "alert");
  else note.removeAttribute("role");
  note.textContent = text;
}
