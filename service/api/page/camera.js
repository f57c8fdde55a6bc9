// The camera: the phone's own app, or a picture taken here where a pointer is fine and the page may see the camera.

const byId = (id) => document.getElementById(id);

/** Let the button take photographs. `onFile` gets each one. */
export function setUpCamera(onFile) {
  const [dialog, video, shoot, problem] = ["camera", "viewfinder", "shoot", "camera-error"].map(byId);
  let stream = null;

  byId("photograph").addEventListener("click", async () => {
    if (matchMedia("(pointer: coarse)").matches || !navigator.mediaDevices?.getUserMedia) {
      byId("capture").click();
      return;
    }
    problem.hidden = true;
    shoot.disabled = true;
    dialog.showModal();
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
      if (!dialog.open) return stop();
      video.srcObject = stream;
      await video.play();
      shoot.disabled = false;
      shoot.focus();
    } catch {
      problem.textContent = "The camera cannot be used. Allow it in the browser, or choose a file.";
      problem.hidden = false;
    }
  });
  shoot.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => onFile(new File([blob], "photograph.jpg", { type: "image/jpeg" })), "image/jpeg", 0.92);
    dialog.close();
  });
  byId("close-camera").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);

  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = video.srcObject = null;
  }
}
