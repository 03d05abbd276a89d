import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URL;

/** Fetches each URL, or connects to a HOST:PORT within 2.5 s; prints what came of it. */
public class Fetch {
  public static void main(String[] arguments) {
    for (String argument : arguments) {
      String answer;
      try {
        if (argument.startsWith("http")) {
          HttpURLConnection connection = (HttpURLConnection) new URL(argument).openConnection();
          answer = connection.getResponseCode() + " " + new String(connection.getInputStream().readAllBytes()).trim();
        } else {
          int colon = argument.lastIndexOf(':');
          try (Socket socket = new Socket()) {
            socket.connect(
                new InetSocketAddress(argument.substring(0, colon), Integer.parseInt(argument.substring(colon + 1))), 2500);
            answer = "connected";
          }
        }
      } catch (Exception error) {
        answer = error.getClass().getName() + ": " + error.getMessage();
      }
      System.out.println("java " + argument + " → " + answer);
    }
  }
}
