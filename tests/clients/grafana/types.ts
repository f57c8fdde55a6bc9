// The dashboard as @grafana/schema knows it: each panel has the options and the custom fields of its own kind.
import type { Dashboard, DataQuery, FieldConfig, FieldConfigSource, Panel, RowPanel } from "@grafana/schema";
import type * as Heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as Stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as Table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as TimeSeries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// The package has no type for a query of Prometheus.
interface Query extends DataQuery {
  expr: string;
  format?: "time_series" | "table" | "heatmap";
  instant: boolean;
  legendFormat: string;
  range: boolean;
}

type Fields<Custom> = Omit<FieldConfigSource, "defaults"> & { defaults: Omit<FieldConfig, "custom"> & { custom?: Custom } };
type Kind<Name extends string, Options, Custom> = Required<Pick<Panel, "id" | "title" | "description" | "gridPos" | "datasource">> &
  Pick<Panel, "transformations"> & { type: Name; options: Options; fieldConfig: Fields<Custom>; targets: Query[] };
type Panels =
  | Kind<"heatmap", Heatmap.Options, Heatmap.FieldConfig>
  | Kind<"stat", Stat.Options, Record<string, never>>
  | Kind<"table", Table.Options, Partial<Table.FieldConfig>>
  | Kind<"timeseries", TimeSeries.Options, TimeSeries.FieldConfig>
  | RowPanel;

// JSON has the values of an enum, where TypeScript wants its names.
type Json<T> = unknown extends T
  ? T
  : T extends string
    ? `${T}`
    : T extends number
      ? `${T}` extends `${infer Value extends number}` ? Value : T
      : T extends (infer Item)[]
        ? Json<Item>[]
        : T extends object
          ? { [Key in keyof T]: Json<T[Key]> }
          : T;

export type Shipped = Json<Omit<Dashboard, "panels"> & { panels: Panels[] }>;
