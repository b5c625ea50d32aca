// Where does each panel lie? Rows of 24 columns, filled from the left.

import type { Panel, RowPanel } from "@grafana/schema";

import type { Placeable } from "./panels.js";

const COLUMNS = 24;

export interface Row {
  title: string;
  /** Of each of its panels, in columns and grid units. */
  width: number;
  height: number;
  panels: Placeable[];
}

export function place(rows: Row[]): Array<Panel | RowPanel> {
  const placed: Array<Panel | RowPanel> = [];
  let y = 0;
  for (const row of rows) {
    placed.push({
      type: "row",
      id: placed.length + 1,
      title: row.title,
      collapsed: false,
      gridPos: { x: 0, y, w: COLUMNS, h: 1 },
      panels: [],
    });
    y += 1;
    const perLine = Math.floor(COLUMNS / row.width);
    row.panels.forEach((panel, at) => {
      const x = (at % perLine) * row.width;
      const below = Math.floor(at / perLine) * row.height;
      const gridPos = { x, y: y + below, w: row.width, h: row.height };
      placed.push({ ...panel, id: placed.length + 1, gridPos });
    });
    y += Math.ceil(row.panels.length / perLine) * row.height;
  }
  return placed;
}
