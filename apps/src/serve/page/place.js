// What is looked at, kept behind the # of the address. In: keys and values. Out: the same after a reload or in a bookmark.

// Longer texts stay out of the address.
const LONGEST = 1500;

export const read = () => new URLSearchParams(location.hash.slice(1));

export const get = (key, otherwise = "") => read().get(key) ?? otherwise;

export function write(changes) {
  const place = read();
  for (const [key, value] of Object.entries(changes)) {
    place.delete(key);
    const values = Array.isArray(value) ? value : [value];
    values.filter((one) => one !== null && one !== undefined && one !== "" && String(one).length <= LONGEST)
      .forEach((one) => place.append(key, one));
  }
  history.replaceState(null, "", `#${place}`);
}
