// Fetches each URL, or connects to a HOST:PORT within 2.5 s; prints what came of it.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func fetch(url string) (string, error) {
	response, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return fmt.Sprint(response.StatusCode, " ", strings.TrimSpace(string(body))), err
}

func main() {
	for _, argument := range os.Args[1:] {
		var answer string
		var err error
		if strings.HasPrefix(argument, "http") {
			answer, err = fetch(argument)
		} else {
			var connection net.Conn
			if connection, err = net.DialTimeout("tcp", argument, 2500*time.Millisecond); err == nil {
				connection.Close()
				answer = "connected"
			}
		}
		if err != nil {
			answer = err.Error()
		}
		fmt.Printf("go %s → %s\n", argument, answer)
	}
}
