// hello answers every request with "hello $NAME": the smallest function for tests of the cluster itself.
package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(answer, "hello", cmp.Or(os.Getenv("NAME"), "world"))
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":"+cmp.Or(os.Getenv("PORT"), "8080"), nil))
	os.Exit(1)
}
