// Command cairn-verify verifies receipts of Cairn: one file that proves one record, with the genesis of the chain alone.
//
//	go build -o cairn-verify . && ./cairn-verify receipt.json --genesis genesis.json
//
// Written from docs/formats.md, with the standard library only and without any code of Cairn. verify.go follows the file
// from the record up:
//
//	record > leaf > batch path > anchor (COSE_Sign1) > leaf > log path > header > certificate > committees > genesis
//
// Exit codes: 0 verified, 3 does not verify (the first step that does not hold is named), 2 usage, 1 another failure.
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(arguments []string) int {
	at := slices.Index(arguments, "--genesis")
	option := func(file string) bool { return strings.HasPrefix(file, "-") }
	if at < 0 || at+1 == len(arguments) {
		return usage()
	}
	genesisFile, files := arguments[at+1], slices.Delete(slices.Clone(arguments), at, at+2)
	if len(files) == 0 || slices.ContainsFunc(files, option) {
		return usage()
	}
	var g genesis
	data, err := os.ReadFile(genesisFile)
	if err == nil {
		err = attempt(func() { checkLibrary(); g = readGenesis(data) })
	}
	if err != nil {
		return failure(genesisFile, err)
	}
	code := 0
	for _, file := range files {
		prefix := ""
		if len(files) > 1 {
			prefix = file + ": "
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return failure(file, err)
		}
		lines, err := verify(data, g)
		if err != nil {
			code, lines = 3, []string{"DOES NOT VERIFY: " + err.Error()}
		}
		for _, line := range lines {
			if _, err := fmt.Println(prefix + line); err != nil {
				return failure("standard output", err)
			}
		}
	}
	return code
}

func usage() int {
	fmt.Fprintln(os.Stderr, "usage: cairn-verify RECEIPT... --genesis GENESIS")
	return 2
}

func failure(name string, err error) int {
	fmt.Fprintf(os.Stderr, "error: %s: %v\n", name, err)
	return 1
}
