// ADBC's Flight SQL driver for Go: catalogue, rows as Arrow, a prepared statement, over TLS with a token.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func check(holds bool, what string) {
	if !holds {
		must(fmt.Errorf("%s", what))
	}
	fmt.Println("ok", what)
}

// numbers gives the whole numbers of a statement's first column.
func numbers(ctx context.Context, statement adbc.Statement) ([]int64, *arrow.Schema) {
	reader, _, err := statement.ExecuteQuery(ctx)
	must(err)
	defer reader.Release()
	var found []int64
	for reader.Next() {
		found = append(found, reader.RecordBatch().Column(0).(*array.Int64).Int64Values()...)
	}
	must(reader.Err())
	return found, reader.Schema()
}

func main() {
	ctx := context.Background()
	expected, err := strconv.ParseInt(os.Getenv("CAIRN_ROWS"), 10, 64)
	must(err)
	root, err := os.ReadFile(os.Getenv("CAIRN_ROOT"))
	must(err)
	database, err := flightsql.NewDriver(memory.DefaultAllocator).NewDatabase(map[string]string{
		adbc.OptionKeyURI:                   "grpc+tls://localhost:" + os.Getenv("CAIRN_FLIGHT_PORT"),
		flightsql.OptionAuthorizationHeader: "Bearer " + os.Getenv("CAIRN_TOKEN"),
		flightsql.OptionSSLRootCerts:        string(root),
	})
	must(err)
	defer database.Close()
	connection, err := database.Open(ctx)
	must(err)
	defer connection.Close()

	schema, table := "test", "reading"
	columns, err := connection.GetTableSchema(ctx, nil, &schema, table)
	must(err)
	check(columns.Field(0).Name == "n" && columns.Field(0).Type.ID() == arrow.INT64, "the schema of a table")
	objects, err := connection.GetObjects(ctx, adbc.ObjectDepthTables, nil, &schema, nil, nil, nil)
	must(err)
	check(objects.Next() && objects.RecordBatch().NumRows() == 1, "the catalogue")
	objects.Release()

	statement, err := connection.NewStatement()
	must(err)
	defer statement.Close()
	must(statement.SetSqlQuery("SELECT n FROM test.reading ORDER BY n"))
	found, answered := numbers(ctx, statement)
	check(int64(len(found)) == expected && found[0] == 0 && found[expected-1] == expected-1, "all rows, in order")
	height, known := answered.Metadata().GetValue("cairn.height")
	check(known && height != "", "the rows are of block "+height)

	must(statement.SetSqlQuery("SELECT count(*) FROM test.reading WHERE n < ?"))
	must(statement.Prepare(ctx))
	for _, bound := range []int64{100, 700} {
		builder := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{
			{Name: "1", Type: arrow.PrimitiveTypes.Int64},
		}, nil))
		builder.Field(0).(*array.Int64Builder).Append(bound)
		must(statement.Bind(ctx, builder.NewRecordBatch()))
		counted, _ := numbers(ctx, statement)
		check(len(counted) == 1 && counted[0] == bound, fmt.Sprint("count of ", bound))
	}

	must(statement.SetSqlQuery("SELECT nothing FROM test.reading"))
	_, _, err = statement.ExecuteQuery(ctx)
	check(err != nil && strings.Contains(err.Error(), "42703"), fmt.Sprint("an error has its SQLSTATE: ", err))
}
