// How are the dashboard's panels made? Two kinds, typed by Grafana's own schema.
// An unknown key is an error of the compiler.

import {
  BigValueColorMode,
  BigValueGraphMode,
  BigValueJustifyMode,
  BigValueTextMode,
  type DataQuery,
  type DataSourceRef,
  FieldColorModeId,
  type FieldConfig,
  type GraphFieldConfig,
  LegendDisplayMode,
  type Panel,
  PercentChangeColorMode,
  SortOrder,
  StackingMode,
  type Threshold,
  ThresholdsMode,
  TooltipDisplayMode,
  VizOrientation,
} from "@grafana/schema";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { Options as TimeSeriesOptions } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

export const DATASOURCE: DataSourceRef = { type: "prometheus", uid: "${datasource}" };

/** What a panel asks. `legend` may name labels: {{tier}}. */
export interface Query {
  expr: string;
  legend: string;
}

/** A panel without its place, which `rows.ts` gives it. */
export type Placeable = Omit<Panel, "gridPos" | "id">;

export interface PrometheusQuery extends DataQuery {
  expr: string;
  legendFormat: string;
  instant: boolean;
  range: boolean;
}

interface Shown {
  title: string;
  description: string;
  unit: string;
  queries: Query[];
  /** From which value on it is how bad; nothing is bad without. */
  warnAt?: number;
  badAt?: number;
  /** The other way around: below these values. */
  badBelow?: number;
  max?: number;
}

/** One figure of now for each instance. */
export function stat(shown: Shown): Placeable {
  const options: StatOptions = {
    colorMode: BigValueColorMode.Background,
    graphMode: BigValueGraphMode.Area,
    justifyMode: BigValueJustifyMode.Auto,
    orientation: VizOrientation.Auto,
    percentChangeColorMode: PercentChangeColorMode.Standard,
    reduceOptions: { calcs: ["lastNotNull"], fields: "", values: false },
    showPercentChange: false,
    textMode: BigValueTextMode.Auto,
    wideLayout: true,
  };
  return panel("stat", shown, { ...options }, {});
}

/** Lines over time, or areas on top of each other. */
export function graph(shown: Shown & { stacked?: boolean }): Placeable {
  const options: TimeSeriesOptions = {
    legend: {
      calcs: ["lastNotNull", "max"],
      displayMode: LegendDisplayMode.Table,
      placement: "bottom",
      showLegend: true,
    },
    tooltip: { mode: TooltipDisplayMode.Multi, sort: SortOrder.Descending },
  };
  const custom: GraphFieldConfig = {
    fillOpacity: shown.stacked ? 30 : 5,
    lineWidth: 1,
    spanNulls: false,
    stacking: { group: "A", mode: shown.stacked ? StackingMode.Normal : StackingMode.None },
  };
  return panel("timeseries", shown, { ...options }, custom);
}

function panel(
  type: "stat" | "timeseries",
  shown: Shown,
  options: Record<string, unknown>,
  custom: GraphFieldConfig,
): Placeable {
  const defaults: FieldConfig = {
    unit: shown.unit,
    min: 0,
    ...(shown.max === undefined ? {} : { max: shown.max }),
    color: {
      mode: type === "stat" ? FieldColorModeId.Thresholds : FieldColorModeId.PaletteClassic,
    },
    thresholds: { mode: ThresholdsMode.Absolute, steps: thresholds(shown) },
    custom: { ...custom },
  };
  return {
    type,
    title: shown.title,
    description: shown.description,
    datasource: DATASOURCE,
    fieldConfig: { defaults, overrides: [] },
    options,
    targets: shown.queries.map((query, at) => ({ ...target(query, at) })),
  };
}

export function target(query: Query, at = 0): PrometheusQuery {
  return {
    refId: String.fromCharCode("A".charCodeAt(0) + at),
    datasource: DATASOURCE,
    expr: query.expr,
    legendFormat: query.legend,
    instant: false,
    range: true,
  };
}

function thresholds({ warnAt, badAt, badBelow }: Shown): Threshold[] {
  // The first step has no value: it begins at minus infinity, which JSON writes as null.
  const start = (color: string): Threshold => ({ color, value: null as unknown as number });
  if (badBelow !== undefined) {
    return [start("red"), { color: "green", value: badBelow }];
  }
  const steps = [start("green")];
  if (warnAt !== undefined) steps.push({ color: "orange", value: warnAt });
  if (badAt !== undefined) steps.push({ color: "red", value: badAt });
  return steps;
}
