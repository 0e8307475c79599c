// Go's net/http/cgi below /cgi-bin/, and its file server elsewhere. Usage: cgi_host SITE ADDRESS
package main

import (
	"log"
	"net/http"
	"net/http/cgi"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	site, address := os.Args[1], os.Args[2]
	http.Handle("/", http.FileServer(http.Dir(site)))
	http.HandleFunc("/cgi-bin/", func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/cgi-bin/"), "/")
		file := filepath.Join(site, "cgi-bin", filepath.Base(name))
		found, err := os.Stat(file)
		if err != nil || !found.Mode().IsRegular() {
			http.NotFound(w, r)
			return
		}
		script := cgi.Handler{Path: file, Root: "/cgi-bin/" + name, Dir: filepath.Dir(file)}
		script.ServeHTTP(w, r)
	})
	log.Fatal(http.ListenAndServe(address, nil))
}
