-- What Grafana's Postgres data source sends: when it is saved and tested, when its query builder opens, and for a panel.
SELECT 1;
SELECT current_setting('server_version_num')::int/100 AS version;
SELECT extversion FROM pg_extension WHERE extname = 'timescaledb';
SELECT
  CASE WHEN quote_ident(table_schema) IN (
      SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
      FROM generate_series(
        array_lower(string_to_array(current_setting('search_path'),','),1),
        array_upper(string_to_array(current_setting('search_path'),','),1)
      ) as i,
      string_to_array(current_setting('search_path'),',') s
    )
    THEN quote_ident(table_name)
    ELSE quote_ident(table_schema) || '.' || quote_ident(table_name)
  END AS "table"
FROM information_schema.tables
WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', '_timescaledb_cache', '_timescaledb_catalog',
  '_timescaledb_internal', '_timescaledb_config', 'timescaledb_information', 'timescaledb_experimental')
ORDER BY CASE WHEN quote_ident(table_schema) = 'public' THEN 0 ELSE 1 END, 1;
SELECT quote_ident(column_name) AS "column", data_type AS "type"
FROM information_schema.columns
WHERE CASE WHEN array_length(parse_ident('test.reading'), 1) = 2
  THEN quote_ident(table_schema) = (parse_ident('test.reading'))[1]
    AND quote_ident(table_name) = (parse_ident('test.reading'))[2]
  ELSE quote_ident(table_name) = 'test.reading'
  END;
SELECT floor(extract(epoch from at)/60)*60 AS "time", sensor AS metric, avg(value) AS "value"
FROM test.reading
WHERE at BETWEEN '2023-11-14T22:00:00Z' AND '2023-11-14T23:00:00Z'
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 50;
SELECT at AS "time", value FROM test.reading
WHERE at >= '2023-11-14T22:00:00Z' AND at <= '2023-11-14T23:00:00Z' ORDER BY 1 LIMIT 50;
