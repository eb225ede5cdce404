// An outside witness with nothing of Cairn's in it: github.com/transparency-dev/witness, kept in memory, for one log. The
// version of transparency-dev/merkle that it names is not to be had from the module proxy; ./merkle stands in for the
// functions that it calls, over golang.org/x/mod/sumdb/tlog.
//
//	go run . -log-vkey VKEY -name NAME
//
// It makes a key, prints "witness ADDRESS VKEY", and serves POST /add-checkpoint until its standard input ends.
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	f_note "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/witness/persistence/inmemory"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	logKey := flag.String("log-vkey", "", "the log's key")
	name := flag.String("name", "", "the witness' name")
	flag.Parse()
	if err := serve(*logKey, *name); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(logKey, name string) error {
	log, err := note.NewVerifier(logKey)
	if err != nil {
		return fmt.Errorf("log key: %w", err)
	}
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return err
	}
	signer, err := f_note.NewSignerForCosignatureV1(skey)
	if err != nil {
		return err
	}
	cosigner, err := f_note.VKeyToCosignatureV1(vkey)
	if err != nil {
		return err
	}
	w, err := witness.New(context.Background(), witness.Opts{
		Persistence: inmemory.New(),
		Signers:     []note.Signer{signer},
		VerifierForLog: func(_ context.Context, origin string) (note.Verifier, bool, error) {
			return log, origin == log.Name(), nil
		},
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("witness", "http://"+listener.Addr().String(), cosigner)
	handler := http.NewServeMux()
	handler.HandleFunc("POST /add-checkpoint", witness.NewHTTPHandler(w).AddCheckpoint)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return http.Serve(listener, handler)
}
