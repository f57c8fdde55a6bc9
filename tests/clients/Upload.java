import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;

/** Sends a file with Java's own client as it comes, which offers HTTP/2, and prints the status of each answer. */
class Upload {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int turn = 0; turn < 2; turn++) {
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .header("Content-Type", "image/jpeg")
                .POST(HttpRequest.BodyPublishers.ofFile(Path.of(arguments[1])));
            if (arguments.length > 2) {
                request.header("X-API-Key", arguments[2]);
            }
            System.out.println(client.send(request.build(), HttpResponse.BodyHandlers.ofString()).statusCode());
        }
    }
}
